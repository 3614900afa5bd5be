/*
 * The cost of starting and reaping a command, by how much memory the host has: one start of each contestant after the other, medians
 * of the wall time, and of the processor time of host and command, which says more on a busy machine.
 *
 * A contestant that is slow has fewer turns (their count is printed). Python is a process of its own with as much memory.
 */
#include "bench.h"

#include <spawn.h>
#include <sys/resource.h>

#if __has_include(<uv.h>)
#include <uv.h>
#define HAS_UV
#endif

extern char **environ;
static const char *const PROGRAM = "/bin/true";
static char *ARGV[] = { const_cast<char *>("true"), nullptr };

static void wait_for(pid_t pid) {
    int status;
    MUST(waitpid(pid, &status, 0) == pid && status == 0);
}
static void by_tine() {
    tine_process_t *process = nullptr;
    int32_t code = -1;
    tine_spawn_options_t options = TINE_SPAWN_OPTIONS_INIT;
    options.executable = PROGRAM;
    TINE(tine_process_spawn(ARGV, &options, &process));
    TINE(tine_process_join(process, TINE_FOREVER));
    TINE(tine_process_exit_code(process, &code));
    MUST(code == 0);
    tine_process_free(process);
}
static void by_posix_spawn() {
    pid_t pid;
    MUST(posix_spawn(&pid, PROGRAM, nullptr, nullptr, ARGV, environ) == 0);
    wait_for(pid);
}
static void by_fork_and_exec() {
    const pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) execv(PROGRAM, ARGV), _exit(127);
    wait_for(pid);
}
#ifdef HAS_UV
static void by_libuv() {
    uv_process_t process;
    uv_process_options_t options{};
    options.file = PROGRAM, options.args = ARGV;
    options.exit_cb = [](uv_process_t *ended, int64_t, int) { uv_close(reinterpret_cast<uv_handle_t *>(ended), nullptr); };
    MUST(uv_spawn(uv_default_loop(), &process, &options) == 0);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
#endif

/* In microseconds. */
struct Cost {
    double wall, processor;
};
static double processor_time() {
    double sum = 0;
    for (const int who : { RUSAGE_SELF, RUSAGE_CHILDREN }) {
        rusage used;
        MUST(getrusage(who, &used) == 0);
        for (const timeval &time : { used.ru_utime, used.ru_stime }) sum += double(time.tv_sec) * 1e6 + double(time.tv_usec);
    }
    return sum;
}

/* Starts one command for each line that it reads, and answers what that cost. */
static const char *const PYTHON = R"(
import mmap, resource, subprocess, sys, time
def used():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
size = int(sys.argv[1])
if size:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, size, 4096): memory[page] = 1
print(0, 0, flush=True)
for line in sys.stdin:
    start, before = time.monotonic(), used()
    subprocess.run([sys.argv[2]], close_fds=True)
    print((time.monotonic() - start) * 1e6, (used() - before) * 1e6, flush=True)
)";
struct Starter {
    const char *name;
    std::function<Cost()> measure;
    std::vector<double> wall, processor;
    double sum = 0;
};
static Starter starter(const char *name, void (*body)()) {
    return { name, [body] {
                const double start = seconds(), used = processor_time();
                body();
                return Cost{ (seconds() - start) * 1e6, processor_time() - used };
            }, {}, {} };
}

/* The median processor time of ours, 0 where there is not that much memory. */
static double row_with(size_t gib) {
    const size_t size = gib << 30;
    const long available = sysconf(_SC_AVPHYS_PAGES);
    if (size > 0 && size_t(available) * size_t(sysconf(_SC_PAGESIZE)) < 2 * size + (size_t(1) << 30)) {
        std::printf("%zu GiB resident: skipped, there is not that much free memory\n", gib);
        return 0;
    }
    char *memory = nullptr;
    if (size > 0) {
        memory = static_cast<char *>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        MUST(memory != MAP_FAILED);
        madvise(memory, size, MADV_NOHUGEPAGE);
        for (size_t at = 0; at < size; at += 4096) memory[at] = 1;
    }
    Python python(PYTHON, { std::to_string(size), PROGRAM }, 2);
    std::vector<Starter> starters = { starter("tine", by_tine), starter("posix_spawn", by_posix_spawn), starter("fork and exec", by_fork_and_exec) };
#ifdef HAS_UV
    starters.push_back(starter("libuv", by_libuv));
#else
    if (gib == 0) std::printf("libuv: skipped, its header is not there\n");
#endif
    if (python.is_there())
        starters.push_back({ "Python's subprocess", [&python] {
            const std::vector<double> cost = python.ask("");
            return Cost{ cost[0], cost[1] };
        }, {}, {} });
    else if (gib == 0) std::printf("Python: skipped, there is no python3\n");

    const long turns = std::max(20L, work(500));
    const double most = 1e6 * double(work(500)) / 100;
    for (long turn = 0; turn < turns; turn++)
        for (Starter &each : starters) {
            if (each.sum > most && &each > &starters[1]) continue;
            const Cost cost = each.measure();
            each.wall.push_back(cost.wall), each.processor.push_back(cost.processor), each.sum += cost.wall;
        }
    std::printf("a command, %zu GiB resident: goal 1.1 x posix_spawn\n", gib);
    const double wall = median(starters[0].wall), processor = median(starters[0].processor);
    for (const Starter &each : starters) {
        std::printf("    %-22s %9.0f us, processor %9.0f us of %4zu", each.name, median(each.wall), median(each.processor), each.wall.size());
        if (&each != &starters[0]) std::printf(" tine is %.2f x, %.2f x", wall / median(each.wall), processor / median(each.processor));
        std::printf("\n");
    }
    std::fflush(stdout);
    if (memory != nullptr) munmap(memory, size);
    return processor;
}

int main() {
    const char *part = std::getenv("WORK_PERCENT");
    const size_t most = part != nullptr && std::atoi(part) < 50 ? 1 : 4;
    double first = 0;
    pin(0);
    for (const size_t gib : { size_t(0), size_t(1), size_t(4) }) {
        if (gib > most) continue;
        const double own = row_with(gib);
        if (gib == 0) first = own;
        else if (own > 0) std::printf("%zu GiB / 0 GiB: goal 1.2 tine is %.2f x\n", gib, own / first);
    }
}
