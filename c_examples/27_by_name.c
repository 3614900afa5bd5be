/* Two programs that know nothing of each other but a name. The one asks, the other answers, through two queues; whoever comes first
 * makes them, so either may be started first, or again.
 *
 * Without arguments this program starts both, as two shells would:
 *     27_by_name ask NAME
 *     27_by_name answer NAME */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tine.h>

extern char **environ;

static int open_queue(const char *name, const char *part, tine_queue_t **out_queue)
{
    tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
    char text[201];

    snprintf(text, sizeof text, "%s.%s", name, part);
    options.name = text;
    options.flags = TINE_OPEN_OR_CREATE;
    return tine_queue_new(&options, out_queue);
}

static int ask(const char *name)
{
    tine_queue_t *questions = NULL, *answers = NULL;
    int exit_status = EXIT_FAILURE;

    if (open_queue(name, "questions", &questions) < 0 || open_queue(name, "answers", &answers) < 0) goto out;
    for (int number = 1; number <= 3; number++) {
        int square = 0;
        if (tine_queue_put(questions, &number, sizeof number, TINE_FOREVER) < 0) goto out;
        if (tine_queue_get(answers, &square, sizeof square, TINE_FOREVER, NULL) < 0) goto out;
        printf("%d times %d is %d\n", number, number, square);
    }
    if (tine_queue_close(questions) < 0) goto out; /* ends the other program */
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "ask: %s\n", tine_last_error_message());
    tine_queue_free(questions);
    tine_queue_free(answers);
    return exit_status;
}

static int answer(const char *name)
{
    tine_queue_t *questions = NULL, *answers = NULL;
    int exit_status = EXIT_FAILURE, number;
    tine_status_t status;

    if (open_queue(name, "questions", &questions) < 0 || open_queue(name, "answers", &answers) < 0) goto out;
    while ((status = tine_queue_get(questions, &number, sizeof number, TINE_FOREVER, NULL)) >= 0) {
        const int square = number * number;
        if (tine_queue_put(answers, &square, sizeof square, TINE_FOREVER) < 0) goto out;
    }
    if (status == TINE_ECLOSED) exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "answer: %s\n", tine_last_error_message());
    tine_queue_free(questions);
    tine_queue_free(answers);
    return exit_status;
}

static pid_t start(char *program, char *role, char *name)
{
    char *argv[] = { program, role, name, NULL };
    pid_t pid = -1;

    return posix_spawn(&pid, program, NULL, NULL, argv, environ) == 0 ? pid : -1;
}

int main(int argc, char **argv)
{
    char name[64], part[80];
    int status[2] = { -1, -1 };
    pid_t pids[2];

    if (argc == 3) return strcmp(argv[1], "ask") == 0 ? ask(argv[2]) : answer(argv[2]);
    snprintf(name, sizeof name, "example-%d", (int)getpid());
    pids[0] = start(argv[0], "ask", name);
    pids[1] = start(argv[0], "answer", name);
    for (int i = 0; i < 2; i++)
        if (pids[i] < 0 || waitpid(pids[i], &status[i], 0) < 0) return EXIT_FAILURE;
    printf("both programs ended %s\n", status[0] == 0 && status[1] == 0 ? "well" : "badly");

    /* A name stays until somebody removes it, whoever has ended. */
    snprintf(part, sizeof part, "%s.questions", name);
    if (tine_unlink(part) < 0) return EXIT_FAILURE;
    snprintf(part, sizeof part, "%s.answers", name);
    return tine_unlink(part) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
