/*
 * What every benchmark needs: contestants that take turns, and medians.
 *
 * Each round measures every contestant of a row once, one after the other, so that what the machine does to one it does to all; a
 * row prints each contestant's median and the median of the rounds' ratios of ours to it. Never compare figures of two runs.
 */
#pragma once
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tine.h"

#define MUST(condition) \
    ((condition) ? (void)0 : (std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, std::strerror(errno)), std::exit(1)))
#define TINE(call) \
    ((call) == TINE_OK ? (void)0 : (std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, tine_last_error_message()), std::exit(1)))

static inline double seconds(clockid_t clock = CLOCK_MONOTONIC) {
    timespec now;
    clock_gettime(clock, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}
static inline int rounds() {
    const char *asked = std::getenv("ROUNDS");
    return asked != nullptr && std::atoi(asked) > 0 ? std::atoi(asked) : 9;
}
/* How much of the work a short run does, at least one unit of it. */
static inline long work(long whole) {
    const char *part = std::getenv("WORK_PERCENT");
    return std::max(1L, part != nullptr ? whole * std::atol(part) / 100 : whole);
}
/* What this program may use. */
static inline const std::vector<int> &processors() {
    static const std::vector<int> allowed = [] {
        std::vector<int> found;
        cpu_set_t set;
        MUST(sched_getaffinity(0, sizeof set, &set) == 0);
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &set)) found.push_back(i);
        return found;
    }();
    return allowed;
}
static inline void use(const std::vector<int> &numbers) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int number : numbers) CPU_SET(number, &set);
    MUST(sched_setaffinity(0, sizeof set, &set) == 0);
}
/* Without it the kernel may put both sides on one processor. */
static inline void pin(int number) { use({ processors()[size_t(number) % processors().size()] }); }
static inline void unpin() { use(processors()); }
template <class T> static T *shared_memory(size_t bytes = sizeof(T)) {
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(memory != MAP_FAILED);
    return static_cast<T *>(memory);
}
/* A process of its own, on a processor of its own as far as there are enough. */
static inline pid_t runner(int processor, const std::function<void()> &body) {
    std::fflush(nullptr);
    const pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) pin(processor), body(), std::fflush(nullptr), _exit(0);
    return pid;
}
static inline void reap(pid_t pid) {
    int status;
    MUST(waitpid(pid, &status, 0) == pid && status == 0);
}

struct Contestant {
    std::string name;
    std::function<double()> measure;
};
static inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}
static inline bool selected(const std::string &what) {
    const char *only = std::getenv("ROWS");
    return only == nullptr || what.find(only) != std::string::npos;
}
/* The first contestant is ours. The goal is what is wanted of ours beside the second one. */
static inline void row(const std::string &what, const char *unit, const std::string &goal, const std::vector<Contestant> &contestants) {
    if (!selected(what)) return;
    std::vector<std::vector<double>> taken(contestants.size());
    for (int round = 0; round < rounds(); round++)
        for (size_t i = 0; i < contestants.size(); i++) taken[i].push_back(contestants[i].measure());
    std::printf("%s%s%s\n", what.c_str(), goal.empty() ? "" : ": goal ", goal.c_str());
    for (size_t i = 0; i < contestants.size(); i++) {
        std::vector<double> ratios;
        for (size_t round = 0; round < taken[i].size(); round++) ratios.push_back(taken[0][round] / taken[i][round]);
        std::printf("    %-44s %14.1f %-6s", contestants[i].name.c_str(), median(taken[i]), unit);
        if (i > 0) std::printf(" tine is %.2f x", median(ratios));
        std::printf("\n");
    }
    std::fflush(stdout);
}
/* ns of two bare futexes, both sides asleep: what two processes pay at least to wake each other. */
static inline double futex_ping_pong(long trips, long pause_us) {
    struct Words { alignas(64) std::atomic<uint32_t> there; alignas(64) std::atomic<uint32_t> back; };
    auto *words = shared_memory<Words>();
    auto *spent = shared_memory<double>();
    const auto wait = [](std::atomic<uint32_t> &word, uint32_t old) {
        while (word.load(std::memory_order_acquire) == old) syscall(SYS_futex, &word, FUTEX_WAIT, old, nullptr, nullptr, 0);
    };
    const auto wake = [](std::atomic<uint32_t> &word, uint32_t value) {
        word.store(value, std::memory_order_release);
        syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
    };
    const pid_t answering = runner(1, [=] {
        for (uint32_t n = 1; n <= trips; n++) wait(words->there, n - 1), wake(words->back, n);
    });
    reap(runner(0, [=] {
        for (uint32_t n = 1; n <= trips; n++) {
            if (pause_us > 0) usleep(useconds_t(pause_us));
            const double start = seconds();
            wake(words->there, n), wait(words->back, n - 1);
            *spent += seconds() - start;
        }
    }));
    reap(answering);
    const double each = *spent / double(trips) * 1e9;
    munmap(words, sizeof *words), munmap(spent, sizeof *spent);
    return each;
}

/* A Python program that says a line of figures at its beginning, and one for each line that it reads. Without python3 it is not there. */
struct Python {
    tine_process_t *process = nullptr;
    FILE *out = nullptr;
    int figures;
    Python(const char *program, const std::vector<std::string> &arguments, int figures) : figures(figures) {
        std::vector<const char *> argv = { "python3", "-c", program };
        for (const std::string &argument : arguments) argv.push_back(argument.c_str());
        argv.push_back(nullptr);
        tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
        options.stdin_mode = options.stdout_mode = TINE_STDIO_PIPE;
        int fd = -1;
        if (tine_process_spawn(argv.data(), &options, &process) < 0) return;
        TINE(tine_process_take_stdout(process, &fd));
        out = fdopen(fd, "r");
        if (answer().empty()) std::fclose(out), out = nullptr;
    }
    bool is_there() const { return out != nullptr; }
    std::vector<double> answer() {
        std::vector<double> answer(static_cast<size_t>(figures));
        for (double &figure : answer)
            if (std::fscanf(out, "%lf", &figure) != 1) return {};
        return answer;
    }
    std::vector<double> ask(const std::string &question) {
        const std::string line = question + "\n";
        MUST(write(tine_process_stdin_fd(process), line.data(), line.size()) == ssize_t(line.size()));
        const std::vector<double> answered = answer();
        MUST(!answered.empty());
        return answered;
    }
    ~Python() {
        if (out != nullptr) std::fclose(out);
        if (process != nullptr) tine_process_stop(process, 1000), tine_process_free(process);
    }
};
