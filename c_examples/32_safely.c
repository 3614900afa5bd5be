/* A parser that crashes on some files, never ends on others and eats memory on a few, run over a directory: each
 * file has three seconds and 32 MiB, and what goes wrong costs that file and nothing else.
 *
 *   32_safely [DIRECTORY]      without one: over some files that it makes
 *
 * The parser counts the letters of texts such as (ab(3*c)): brackets nest, 3*c is ccc. It is as bad as parsers are. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tine.h>

/* ---- The parser ---- */

static char *letters;
static size_t letter_count, letter_room;

static void add(char letter, unsigned long long times)
{
    while (times > 0) {
        size_t some;
        if (letter_count == letter_room) {
            char *grown;
            size_t room = 2 * letter_room + 4096;
            while ((grown = realloc(letters, room)) == NULL) poll(NULL, 0, 10);     /* it will not get better */
            letters = grown;
            letter_room = room;
        }
        some = times < letter_room - letter_count ? (size_t)times : letter_room - letter_count;
        memset(letters + letter_count, letter, some);
        letter_count += some;
        times -= some;
    }
}

static const char *parse(const char *text, int depth)
{
    volatile char frame[256];           /* deep nesting ends the stack */

    frame[0] = (char)depth;
    while (*text != ')' && *text != '\0') {
        if (*text == '(') text = parse(text + 1, depth + frame[0] / 256 + 1);
        else if (*text == '"') while (*text != '\n') text += *text != '\0';     /* a quote that is not closed: for ever */
        else if (*text >= '0' && *text <= '9') {
            char *end;
            unsigned long long times = strtoull(text, &end, 10);
            text = end + 2;
            add(end[1], times);
        } else add(*text++, 1);
    }
    if (*text == ')' && depth == 0) abort();
    return *text == ')' ? text + 1 : text;
}

/* ---- The same in a worker ---- */

static int32_t count_letters(const void *arg, size_t arg_len, tine_task_t *task)
{
    static char text[1 << 21];
    FILE *file = fopen(arg, "re");
    size_t length;

    (void)arg_len;
    if (file == NULL) return errno;
    length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    letter_count = 0;
    parse(text, 0);
    return tine_task_reply(task, &letter_count, sizeof letter_count) < 0 ? EIO : 0;
}

/* ---- The directory ---- */

enum cause { GOOD, UNREADABLE, CRASHED, TOO_SLOW, TOO_LARGE, CAUSES };
static const char *const names[CAUSES] = { "parsed", "unreadable", "crashed", "took too long", "took too much memory" };

static enum cause cause_of(const tine_result_t *result, char *detail, size_t size)
{
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    size_t length, letters_read;
    const void *data = tine_result_data(result, &length);

    detail[0] = '\0';
    switch (tine_result_status(result)) {
    case TINE_OK:
        memcpy(&letters_read, data, sizeof letters_read);
        snprintf(detail, size, ": %zu letters", letters_read);
        return GOOD;
    case TINE_ETASKFAILED:
        snprintf(detail, size, ": %s", strerror(tine_result_code(result)));
        return UNREADABLE;
    case TINE_ETIMEDOUT:
        return TOO_SLOW;
    default:
        if (tine_result_exit_info(result, &info) == TINE_OK && info.reason == TINE_REASON_MEMORY) return TOO_LARGE;
        snprintf(detail, size, ": %s", strsignal(info.signal));
        return CRASHED;
    }
}

static void write_file(const char *folder, const char *name, const char *text, int times)
{
    char path[300];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "we");
    for (int i = 0; file != NULL && i < times; i++) fputs(text, file);
    if (file != NULL) fclose(file);
}

static int is_file(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submit = TINE_SUBMIT_OPTIONS_INIT;
    tine_pool_t *pool = NULL;
    tine_async_t **asyncs = NULL;
    struct dirent **files = NULL;
    char made[] = "/tmp/tine_safely_XXXXXX", path[600], detail[100];
    const char *folder = argc > 1 ? argv[1] : mkdtemp(made);
    int exit_status = EXIT_FAILURE, count = 0, counts[CAUSES] = { 0 };

    if (folder == made) {
        write_file(folder, "a_good.txt", "(ab(3*c))", 1);
        write_file(folder, "b_deep.txt", "(", 1000000);
        write_file(folder, "c_good.txt", "letters", 1);
        write_file(folder, "d_quote.txt", "(\"never closed)", 1);
        write_file(folder, "e_huge.txt", "(4000000000*x)", 1);
        write_file(folder, "f_closed.txt", "a)", 1);
        write_file(folder, "g_good.txt", "(1000*z)", 1);
    }
    options.workers = 2;
    options.memory_limit_bytes = 32 << 20;
    options.flags = TINE_POOL_NO_CORE;
    if (tine_pool_new(&options, &pool) < 0) goto out;
    count = folder != NULL ? scandir(folder, &files, is_file, alphasort) : -1;
    asyncs = count >= 0 ? calloc((size_t)count + 1, sizeof(tine_async_t *)) : NULL;
    if (asyncs == NULL) goto out;
    submit.timeout_ms = 3000;
    for (int i = 0; i < count; i++) {
        int length = snprintf(path, sizeof path, "%s/%s", folder, files[i]->d_name);
        if (tine_pool_submit(pool, count_letters, path, (size_t)length + 1, &submit, &asyncs[i]) < 0) goto out;
    }
    for (int i = 0; i < count; i++) {
        const tine_result_t *result;
        if (tine_async_get(asyncs[i], TINE_FOREVER, &result) < 0) goto out;
        enum cause cause = cause_of(result, detail, sizeof detail);
        counts[cause]++;
        printf("%-12s  %s%s\n", files[i]->d_name, names[cause], detail);
    }
    for (int cause = 0; cause < CAUSES; cause++) printf("%5d  %s\n", counts[cause], names[cause]);
    exit_status = EXIT_SUCCESS;

out:
    if (exit_status != EXIT_SUCCESS) fprintf(stderr, "%s\n", tine_last_error_message());
    tine_pool_free(pool);
    for (int i = 0; i < count; i++) {
        if (asyncs != NULL) tine_async_free(asyncs[i]);
        snprintf(path, sizeof path, "%s/%s", folder, files[i]->d_name);
        if (folder == made) unlink(path);
        free(files[i]);
    }
    free(files), free(asyncs);
    if (folder == made) rmdir(made);
    return exit_status;
}
