/* word_count DIR [--workers N] [--top K] [--list FILE] [--crash-on NAME]
 *
 * Counts the words of every file below DIR in a pool of worker processes and prints how many there are and which are the most
 * frequent. A word is a maximal run of ASCII letters, taken in lower case. Symbolic links are not followed.
 *
 * One task per file: its argument is the path, its reply the file's words with their counts, and a callback adds them to the
 * whole. A file that cannot be read, or whose worker dies, costs that file and nothing else: it is reported, all others are counted.
 *
 *   --workers N       worker processes (default: one per core)
 *   --top K           how many words to print (default: 10)
 *   --list FILE       writes all words, sorted, as `sort | uniq -c` would
 *   --crash-on NAME   the task of each file with this name dereferences NULL, to see what becomes of the rest
 *
 * Exit status: 0 every file was counted, 1 some were not, 2 wrong usage. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tine.h>

/* ---- Words and how often they occur ---- */

/* Each word is a record, and the records lie one behind the other: what a worker replies is its `bytes` as they are. */
struct record {
    uint64_t count;
    uint64_t length;
    char letters[];
};

struct words {
    char *bytes;                /* the records, each padded to a multiple of 8 */
    size_t used, capacity;
    size_t *slots;              /* hash table: the offset of a record plus 1; 0 = free */
    size_t slot_count;          /* a power of two, less than half in use */
    size_t different;
    uint64_t total;
};

static size_t record_size(uint64_t length)
{
    return sizeof(struct record) + (size_t)((length + 7) & ~(uint64_t)7);
}

static size_t hash(const char *letters, size_t length)
{
    uint64_t hash = 14695981039346656037u;      /* FNV-1a */

    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)letters[i]) * 1099511628211u;
    return (size_t)(hash ^ hash >> 32);
}

/* The slot of this word: where it is, or where it belongs. */
static size_t *find(const struct words *words, const char *letters, size_t length)
{
    for (size_t at = hash(letters, length);; at++) {
        size_t *slot = &words->slots[at & (words->slot_count - 1)];
        if (*slot == 0) return slot;
        const struct record *record = (const struct record *)(words->bytes + *slot - 1);
        if (record->length == length && memcmp(record->letters, letters, length) == 0) return slot;
    }
}

/* Makes room for one more record of this size. */
static bool reserve(struct words *words, size_t size)
{
    if (words->capacity - words->used < size) {
        size_t capacity = 2 * words->capacity + size + 4096;
        char *bytes = realloc(words->bytes, capacity);
        if (bytes == NULL) return false;
        words->bytes = bytes;
        words->capacity = capacity;
    }
    if (words->slot_count <= 2 * (words->different + 1)) {
        size_t slot_count = words->slot_count ? 4 * words->slot_count : 1024;
        size_t *slots = calloc(slot_count, sizeof *slots);
        if (slots == NULL) return false;
        free(words->slots);
        words->slots = slots;
        words->slot_count = slot_count;
        for (size_t at = 0; at < words->used;) {
            const struct record *record = (const struct record *)(words->bytes + at);
            *find(words, record->letters, (size_t)record->length) = at + 1;
            at += record_size(record->length);
        }
    }
    return true;
}

static bool words_add(struct words *words, const char *letters, size_t length, uint64_t count)
{
    size_t size = record_size(length);
    struct record *record;

    if (!reserve(words, size)) return false;
    size_t *slot = find(words, letters, length);
    if (*slot == 0) {
        *slot = words->used + 1;
        record = (struct record *)(words->bytes + words->used);
        memset(record, 0, size);
        record->length = length;
        memcpy(record->letters, letters, length);
        words->used += size;
        words->different++;
    } else {
        record = (struct record *)(words->bytes + *slot - 1);
    }
    record->count += count;
    words->total += count;
    return true;
}

static void words_free(struct words *words)
{
    free(words->bytes);
    free(words->slots);
}

/* ---- In a worker: one file ---- */

static const char *crash_on;    /* set before the pool is made: its workers have a copy of this process's memory */

static bool has_name(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return name != NULL && strcmp(slash ? slash + 1 : path, name) == 0;
}

/* Reads the file to its end, block by block. 0, or the errno of what failed. */
static int count_words(int fd, struct words *words)
{
    size_t capacity = 65536, held = 0;      /* held: letters of a word that may go on in the next block */
    char *block = malloc(capacity);
    ssize_t got;
    int error = ENOMEM;

    if (block == NULL) goto out;
    do {
        size_t start = 0;
        while ((got = read(fd, block + held, capacity - held)) < 0)
            if (errno != EINTR) {
                error = errno;
                goto out;
            }
        size_t end = held + (size_t)got;
        for (size_t i = held; i < end; i++) {
            char lower = block[i] | 0x20;
            if (lower >= 'a' && lower <= 'z') {
                block[i] = lower;
                continue;
            }
            if (i > start && !words_add(words, block + start, i - start, 1)) goto out;
            start = i + 1;
        }
        held = end - start;
        memmove(block, block + start, held);
        if (held == capacity) {
            char *larger = realloc(block, 2 * capacity);
            if (larger == NULL) goto out;
            block = larger;
            capacity *= 2;
        }
    } while (got > 0);
    if (held > 0 && !words_add(words, block, held, 1)) goto out;
    error = 0;
out:
    free(block);
    return error;
}

/* The task. Returns 0, an errno, or the (negative) status of the reply: the host finds it in tine_result_code(). */
static int32_t count_file(const void *arg, size_t arg_len, tine_task_t *task)
{
    const char *path = arg;                 /* sent with its terminating NUL */
    struct words words = { 0 };
    int32_t code;

    (void)arg_len;
    if (has_name(path, crash_on)) {
        int *volatile nowhere = NULL;
        *nowhere = 1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return errno;
    code = count_words(fd, &words);
    close(fd);
    if (code == 0) code = tine_task_reply(task, words.bytes, words.used);
    words_free(&words);
    return code;
}

/* ---- In the host: all files ---- */

struct file {
    char *path;
    char *problem;                          /* why it was not counted, or NULL */
};

/* Callbacks run one at a time, and join returns after the last one: no lock is needed. */
static struct {
    struct file *files;
    size_t count, capacity;
    size_t tasks;                           /* files that get one: all but those that the walk could not read */
    struct words words;
    bool out_of_memory;
} job;

static void add_file(const char *path, const char *problem)
{
    struct file file = { strdup(path), problem ? strdup(problem) : NULL };

    if (job.count == job.capacity) {
        size_t capacity = 2 * job.capacity + 256;
        struct file *files = realloc(job.files, capacity * sizeof *files);
        if (files != NULL) {
            job.files = files;
            job.capacity = capacity;
        }
    }
    if (file.path == NULL || (problem && file.problem == NULL) || job.count == job.capacity) {
        job.out_of_memory = true;
        free(file.path);
        free(file.problem);
        return;
    }
    job.tasks += problem == NULL;
    job.files[job.count++] = file;
}

static int visit(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)where;
    if (type == FTW_DNR || type == FTW_NS) add_file(path, strerror(errno));
    if (type == FTW_F && S_ISREG(info->st_mode)) add_file(path, NULL);
    return job.out_of_memory ? -1 : 0;
}

/* Callback of a task that replied: adds the words of its file. The bytes come from another process and are not trusted. */
static void merge(const tine_result_t *result, void *user_data)
{
    size_t left = 0;
    const char *at = tine_result_data(result, &left);
    struct record record;

    (void)user_data;
    while (left >= sizeof record) {
        memcpy(&record, at, sizeof record);
        if (record.length > left - sizeof record || record_size(record.length) > left) break;
        if (!words_add(&job.words, at + sizeof record, (size_t)record.length, record.count)) job.out_of_memory = true;
        at += record_size(record.length);
        left -= record_size(record.length);
    }
}

/* Callback of a task that failed: notes why. */
static void fail(const tine_result_t *result, void *user_data)
{
    struct file *file = &job.files[tine_result_task_id(result) - 1];
    tine_exit_info_t info = TINE_EXIT_INFO_INIT;
    tine_status_t status = tine_result_status(result);
    int32_t code = tine_result_code(result);
    int written;

    (void)user_data;
    if (status == TINE_EWORKERDIED && tine_result_exit_info(result, &info) >= 0 && info.signal != 0)
        written = asprintf(&file->problem, "its worker was killed by signal %d (%s)", info.signal, strsignal(info.signal));
    else if (status == TINE_ETASKFAILED)
        written = asprintf(&file->problem, "%s", code > 0 ? strerror(code) : tine_strerror(code));
    else
        written = asprintf(&file->problem, "%s", tine_strerror(status));
    if (written < 0) {
        file->problem = NULL;
        job.out_of_memory = true;
    }
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Draws the bar on stderr, at most ten times a second, if that is a terminal. */
static void show_progress(const tine_pool_t *pool)
{
    static const char full[] = "##############################", empty[] = "..............................";
    static double start, last;
    tine_pool_stats_t stats = TINE_POOL_STATS_INIT;
    double time = now();

    if (start == 0) start = last = time;
    if (time - last < 0.1) return;
    last = time;
    if (!isatty(STDERR_FILENO) || tine_pool_stats(pool, &stats) < 0) return;
    size_t done = (size_t)(stats.done + stats.failed);
    int width = sizeof full - 1, filled = (int)(done * sizeof full / (job.tasks + 1));
    double rate = (double)done / (time - start);
    unsigned left = done > 0 ? (unsigned)((double)(job.tasks - done) / rate + 0.5) : 0;
    fprintf(stderr, "\r[%.*s%.*s] %zu/%zu files, %.0f/s, %u:%02u left\033[K", filled, full, width - filled, empty, done,
            job.tasks, rate, left / 60, left % 60);
}

static void hide_progress(void)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
}

/* ---- The report ---- */

static int by_letters(const void *a, const void *b)
{
    const struct record *left = *(const struct record *const *)a, *right = *(const struct record *const *)b;
    int order = memcmp(left->letters, right->letters, (size_t)(left->length < right->length ? left->length : right->length));

    if (order != 0) return order;
    return (left->length > right->length) - (left->length < right->length);
}

static int by_count(const void *a, const void *b)
{
    const struct record *left = *(const struct record *const *)a, *right = *(const struct record *const *)b;

    if (left->count != right->count) return left->count < right->count ? 1 : -1;
    return by_letters(a, b);
}

static void print_words(FILE *to, const struct record *const *sorted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fprintf(to, "%7" PRIu64 " %.*s\n", sorted[i]->count, (int)sorted[i]->length, sorted[i]->letters);
}

/* True if every file was counted and everything is written. */
static bool report(size_t top, const char *list)
{
    const struct record **sorted = malloc((job.words.different + 1) * sizeof *sorted);
    size_t count = 0, failed = 0;
    bool written = true;

    if (sorted == NULL) return false;
    for (size_t at = 0; at < job.words.used; count++) {
        sorted[count] = (const struct record *)(job.words.bytes + at);
        at += record_size(sorted[count]->length);
    }
    if (list != NULL) {
        FILE *file = fopen(list, "w");
        qsort(sorted, count, sizeof *sorted, by_letters);
        if (file != NULL) print_words(file, sorted, count);
        written = file != NULL && !ferror(file);
        if (file != NULL && fclose(file) != 0) written = false;
        if (!written) fprintf(stderr, "word_count: %s: %s\n", list, strerror(errno));
    }
    for (size_t i = 0; i < job.count; i++) {
        if (job.files[i].problem == NULL) continue;
        fprintf(stderr, "word_count: %s: %s\n", job.files[i].path, job.files[i].problem);
        failed++;
    }
    if (failed > 0) fprintf(stderr, "word_count: %zu of %zu files failed\n", failed, job.count);
    printf("%" PRIu64 " words, %zu different, in %zu files\n", job.words.total, count, job.count - failed);
    qsort(sorted, count, sizeof *sorted, by_count);
    print_words(stdout, sorted, top < count ? top : count);
    free(sorted);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "word_count: standard output: %s\n", strerror(errno));
        written = false;
    }
    return written && failed == 0;
}

/* ---- */

static bool parse_number(const char *text, unsigned long limit, unsigned long *out)
{
    char *end;

    errno = 0;
    *out = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *out <= limit;
}

static int usage(void)
{
    fprintf(stderr, "usage: word_count DIR [--workers N] [--top K] [--list FILE] [--crash-on NAME]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        { "workers", required_argument, NULL, 'w' },
        { "top", required_argument, NULL, 't' },
        { "list", required_argument, NULL, 'l' },
        { "crash-on", required_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    tine_submit_options_t submit = TINE_SUBMIT_OPTIONS_INIT;
    unsigned long workers = 0, top = 10;
    const char *list = NULL;
    tine_pool_t *pool = NULL;
    tine_status_t status = TINE_OK;
    int option, exit_status = 1;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'w': if (!parse_number(optarg, UINT32_MAX, &workers)) return usage(); break;
        case 't': if (!parse_number(optarg, SIZE_MAX, &top)) return usage(); break;
        case 'l': list = optarg; break;
        case 'c': crash_on = optarg; break;
        default: return usage();
        }
    }
    if (optind + 1 != argc) return usage();

    /* Pools are made early: the workers carry a copy of everything that this process has in memory now. */
    options.workers = (uint32_t)workers;
    options.flags = crash_on ? TINE_POOL_NO_CORE : 0;
    options.crash_budget = UINT32_MAX;      /* a crash says something about one file, nothing about the pool */
    if ((status = tine_pool_new(&options, &pool)) < 0) goto out;

    if (nftw(argv[optind], visit, 64, FTW_PHYS) != 0) {
        fprintf(stderr, "word_count: %s: %s\n", argv[optind], strerror(job.out_of_memory ? ENOMEM : errno));
        goto out;
    }
    submit.callback = merge;
    submit.error_callback = fail;
    for (size_t i = 0; i < job.count; i++) {
        const char *path = job.files[i].path;
        if (job.files[i].problem != NULL) continue;
        submit.task_id = i + 1;
        if ((status = tine_pool_submit(pool, count_file, path, strlen(path) + 1, &submit, NULL)) < 0) break;
        show_progress(pool);
    }
    if (status >= 0) status = tine_pool_close(pool);
    if (status >= 0)
        while ((status = tine_pool_join(pool, 100)) == TINE_ETIMEDOUT) show_progress(pool);
    hide_progress();
    if (status < 0) goto out;

    if (job.out_of_memory) {
        fprintf(stderr, "word_count: out of memory\n");
        goto out;
    }
    if (report(top, list)) exit_status = 0;

out:
    if (status < 0) fprintf(stderr, "word_count: %s\n", tine_last_error_message());
    tine_pool_free(pool);
    for (size_t i = 0; i < job.count; i++) {
        free(job.files[i].path);
        free(job.files[i].problem);
    }
    free(job.files);
    words_free(&job.words);
    return exit_status;
}
