/*
 * Pools beside Python's multiprocessing.Pool and concurrent.futures.ProcessPoolExecutor. Python is a process of its own that makes the
 * pool, warms it up, and answers what one measurement took. Hosts with memory have it before they make a pool.
 */
#include "bench.h"

#include <atomic>
#include <memory>

static int32_t nothing(const void *, size_t, tine_task_t *) { return 0; }
static int32_t twice(const void *argument, size_t, tine_task_t *task) {
    uint64_t number;
    std::memcpy(&number, argument, sizeof number);
    number *= 2;
    return tine_task_reply(task, &number, sizeof number);
}
static void count(const tine_result_t *result, void *counter) { MUST(tine_result_status(result) == TINE_OK), ++*static_cast<long *>(counter); }

struct Pool {
    tine_pool_t *pool = nullptr;
    explicit Pool(uint32_t workers) {
        tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
        options.workers = workers;
        TINE(tine_pool_new(&options, &pool));
        for (uint32_t i = 0; i < workers * 20; i++) TINE(tine_pool_apply(pool, nothing, nullptr, 0, TINE_FOREVER, nullptr));
    }
    ~Pool() { tine_pool_free(pool); }
};

/* us of one task there and back; pausing longer than anybody spins puts both sides to sleep each time. */
static double apply(long tasks, long pause_us) {
    pin(1);
    const Pool one(1); /* The worker keeps the processor that the host has now. */
    pin(0);
    double spent = 0;
    for (uint64_t n = 0; n < uint64_t(tasks); n++) {
        if (pause_us > 0) usleep(useconds_t(pause_us));
        tine_result_t *result;
        const double start = seconds();
        TINE(tine_pool_apply(one.pool, twice, &n, sizeof n, TINE_FOREVER, &result));
        spent += seconds() - start;
        uint64_t answer;
        size_t length;
        const void *data = tine_result_data(result, &length);
        MUST(length == sizeof answer);
        std::memcpy(&answer, data, sizeof answer);
        MUST(answer == 2 * n);
        tine_result_free(result);
    }
    unpin();
    return spent / double(tasks) * 1e6;
}
/* Tasks a second. */
static double submit_with_asyncs(uint32_t workers, long tasks) {
    const Pool some(workers);
    std::vector<tine_async_t *> asyncs(static_cast<size_t>(tasks));
    const double start = seconds();
    for (auto &async : asyncs) TINE(tine_pool_submit(some.pool, nothing, nullptr, 0, nullptr, &async));
    for (auto async : asyncs) TINE(tine_async_get(async, TINE_FOREVER, nullptr)), tine_async_free(async);
    return double(tasks) / (seconds() - start);
}
static double submit_with_callbacks(uint32_t workers, long tasks) {
    const Pool some(workers);
    long called = 0;
    tine_submit_options_t options = TINE_SUBMIT_OPTIONS_INIT;
    options.callback = options.error_callback = count;
    options.user_data = &called;
    const double start = seconds();
    for (long n = 0; n < tasks; n++) TINE(tine_pool_submit(some.pool, nothing, nullptr, 0, &options, nullptr));
    TINE(tine_pool_close(some.pool));
    TINE(tine_pool_join(some.pool, TINE_FOREVER));
    const double took = seconds() - start;
    MUST(called == tasks);
    return double(tasks) / took;
}
static double map(long items) {
    const Pool two(2);
    std::vector<uint64_t> numbers(static_cast<size_t>(items)), results(numbers.size());
    for (size_t i = 0; i < numbers.size(); i++) numbers[i] = i;
    const double start = seconds();
    TINE(tine_pool_map(two.pool, twice, numbers.data(), sizeof(uint64_t), numbers.size(), 0, results.data(), sizeof(uint64_t), TINE_FOREVER, nullptr));
    const double took = seconds() - start;
    for (size_t i = 0; i < results.size(); i++) MUST(results[i] == 2 * i);
    return double(items) / took;
}
/* us until a pool has run its first task. */
static double start_of(uint32_t workers) {
    tine_pool_options_t options = TINE_POOL_OPTIONS_INIT;
    options.workers = workers;
    tine_pool_t *pool;
    const double start = seconds();
    TINE(tine_pool_new(&options, &pool));
    TINE(tine_pool_apply(pool, nothing, nullptr, 0, TINE_FOREVER, nullptr));
    const double took = seconds() - start;
    tine_pool_free(pool);
    return took * 1e6;
}

struct Times { std::atomic<double> died, ran; };
static Times *times = shared_memory<Times>();
static int32_t die(const void *, size_t, tine_task_t *) { times->died = seconds(), _exit(1); }
static int32_t run(const void *, size_t, tine_task_t *) { return times->ran = seconds(), 0; }
/* us from the last act of a worker to the first of the task after it, which waits already. */
static double death_to_next(const Pool &one, size_t gib) {
    tine_async_t *last, *next;
    TINE(tine_pool_submit(one.pool, die, nullptr, 0, nullptr, &last));
    TINE(tine_pool_submit(one.pool, run, nullptr, 0, nullptr, &next));
    const tine_result_t *result;
    TINE(tine_async_get(last, TINE_FOREVER, &result));
    MUST(tine_result_status(result) == TINE_EWORKERDIED);
    TINE(tine_async_get(next, TINE_FOREVER, nullptr));
    tine_async_free(last), tine_async_free(next);
    usleep(useconds_t(50000 + 250000 * gib)); /* The next spare is made meanwhile. */
    return (times->ran - times->died) * 1e6;
}
static double fork_of_this_host() {
    times->died = seconds();
    const pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) times->ran = seconds(), _exit(0);
    reap(pid);
    return (times->ran - times->died) * 1e6;
}

/* Memory that was written to. */
struct Memory {
    size_t size;
    char *bytes;
    explicit Memory(size_t size) : size(size) {
        bytes = static_cast<char *>(mmap(nullptr, std::max(size, size_t(4096)), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        MUST(bytes != MAP_FAILED);
        madvise(bytes, size, MADV_NOHUGEPAGE);
        touch();
    }
    ~Memory() { munmap(bytes, std::max(size, size_t(4096))); }
    /* ns a page. */
    double touch() {
        const double start = seconds();
        for (size_t at = 0; at < size; at += 4096) ++*const_cast<volatile char *>(bytes + at);
        return size > 0 ? (seconds() - start) / double(size / 4096) * 1e9 : 0;
    }
};

/* Voluntary context switches of this process and of all that descend from it, threads included. */
static long switches(const std::string &pid) {
    long sum = 0;
    const std::string command = "cat /proc/" + pid + "/task/*/status 2>/dev/null | awk '/^voluntary/ { sum += $2 } END { print sum + 0 }'; "
        "cat /proc/" + pid + "/task/*/children 2>/dev/null";
    const std::unique_ptr<FILE, int (*)(FILE *)> out(popen(command.c_str(), "r"), pclose);
    MUST(out != nullptr && std::fscanf(out.get(), "%ld", &sum) == 1);
    std::vector<long> children;
    for (long child; std::fscanf(out.get(), "%ld", &child) == 1;) children.push_back(child);
    for (const long child : children) sum += switches(std::to_string(child));
    return sum;
}

/* Answers each line, a call of one of its functions, with a figure. */
static const char *const PYTHON = R"(
import concurrent.futures, mmap, multiprocessing, os, struct, sys, time
context = multiprocessing.get_context('fork')
def nothing(): pass
def twice(n): return 2 * n
class Pool:
    def __init__(self, workers): self.pool = context.Pool(workers)
    def apply(self, f, *args): return self.pool.apply(f, args)
    def submit(self, f): return self.pool.apply_async(f)
    def submit_with(self, f, callback): self.pool.apply_async(f, callback=callback)
    def get(self, future): future.get()
    def map(self, f, items): return self.pool.map(f, items)
    def end(self): self.pool.terminate(); self.pool.join()
class Executor:
    def __init__(self, workers): self.pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    def apply(self, f, *args): return self.pool.submit(f, *args).result()
    def submit(self, f): return self.pool.submit(f)
    def submit_with(self, f, callback): self.pool.submit(f).add_done_callback(callback)
    def get(self, future): future.result()
    def map(self, f, items): return list(self.pool.map(f, items, chunksize=10000))
    def end(self): self.pool.shutdown()
def made(kind, workers):
    pool = kind(workers)
    for _ in range(workers * 20): pool.apply(nothing)
    return pool
def apply(kind, tasks, pause):
    pool, spent = made(kind, 1), 0
    for n in range(tasks):
        if pause: time.sleep(pause)
        start = time.monotonic()
        answer = pool.apply(twice, n)
        spent += time.monotonic() - start
        assert answer == 2 * n
    pool.end()
    return spent / tasks * 1e6
def submit(kind, workers, tasks, with_callbacks):
    pool, called = made(kind, workers), []
    start = time.monotonic()
    if with_callbacks:
        for _ in range(tasks): pool.submit_with(nothing, called.append)
        while len(called) < tasks: time.sleep(0.0005)
    else:
        for future in [pool.submit(nothing) for _ in range(tasks)]: pool.get(future)
    took = time.monotonic() - start
    pool.end()
    return tasks / took
def map_of(kind, items):
    pool = made(kind, 2)
    start = time.monotonic()
    results = pool.map(twice, range(items))
    took = time.monotonic() - start
    assert results[-1] == 2 * (items - 1) and len(results) == items
    pool.end()
    return items / took
def start(kind, workers):
    start = time.monotonic()
    pool = kind(workers)
    pool.apply(nothing)
    took = time.monotonic() - start
    pool.end()
    return took * 1e6
times = mmap.mmap(-1, 16)
def die(): times[0:8] = struct.pack('d', time.monotonic()); os._exit(1)
def run(): times[8:16] = struct.pack('d', time.monotonic())
def death():
    pool = made(Pool, 1)
    pool.submit(die)
    pool.apply(run)
    died, ran = struct.unpack('dd', times[0:16])
    pool.end()
    return (ran - died) * 1e6
held = None
def resident(size):
    global held
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, size, 4096): held[page] = 1
    return 0
def keep(workers):
    global kept
    kept = made(Pool, workers)
    return os.getpid()
print(0, flush=True)
for line in sys.stdin: print(eval(line), flush=True)
)";
static Python python(PYTHON, {}, 1);
static double ask(const std::string &call) { return python.ask(call)[0]; }
/* Ours beside both of Python's, by the same call with "Pool" and "Executor" in it. */
static void beside_python(const std::string &what, const char *unit, const std::string &goal, std::vector<Contestant> contestants,
                          const std::string &function, const std::string &arguments) {
    for (const char *kind : { "Pool", "Executor" }) {
        const std::string call = function + "(" + kind + ", " + arguments + ")";
        const double scale = std::strcmp(unit, "k/s") == 0 ? 1e-3 : 1;
        if (python.is_there())
            contestants.push_back({ std::string("Python's ") + (*kind == 'P' ? "Pool" : "ProcessPoolExecutor"), [=] { return ask(call) * scale; } });
    }
    row(what, unit, goal, contestants);
}
static std::string text(long number) { return std::to_string(number); }

/* What a pool means to a host with memory. */
static void in_a_host_of(size_t gib) {
    const size_t size = gib << 30;
    if (size_t(sysconf(_SC_AVPHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE)) < 3 * size + (size_t(1) << 30)) {
        std::printf("a host of %zu GiB: skipped, there is not that much free memory\n", gib);
        return;
    }
    const std::string host = "host of " + text(long(gib)) + " GiB";
    Memory memory(size);
    if (python.is_there() && gib > 0) ask("resident(" + text(long(size)) + ")");
    {
        const Pool one(1);
        std::vector<Contestant> contestants = { { "tine", [&] { return death_to_next(one, gib); } }, { "a fork of this host", fork_of_this_host } };
        if (python.is_there()) contestants.push_back({ "Python's Pool", [] { return ask("death()"); } });
        row("from a worker's death to the next task, " + host, "us", "<= 1000 us", contestants);
    }
    if (gib == 0) return;
    std::vector<Contestant> contestants = { { "tine", [] { return start_of(8); } } };
    if (python.is_there()) contestants.push_back({ "Python's Pool", [] { return ask("start(Pool, 8)"); } });
    row("a pool of 8 is made and runs a task, " + host, "us", "", contestants);
    row("the first write to a page after that, " + host, "ns", "", {
        { "beside a pool", [&] { const Pool eight(8); return memory.touch(); } },
        { "without", [&] { return memory.touch(); } } });
}

static void an_idle_pool_of(uint32_t workers) {
    if (!selected("idle")) return;
    const auto print_switches = [](const char *whose, pid_t pid) {
        sleep(1);
        const long before = switches(text(pid));
        sleep(5);
        std::printf("    %-44s %14ld\n", whose, switches(text(pid)) - before);
    };
    std::printf("an idle pool of %u: voluntary context switches of its host, all workers and whatever is between in 5 s: goal 0\n", workers);
    int made[2], over[2];
    MUST(pipe(made) == 0 && pipe(over) == 0);
    const pid_t host = runner(0, [&] {
        unpin(), close(over[1]);
        const Pool many(workers);
        char byte = 0;
        MUST(write(made[1], &byte, 1) == 1);
        MUST(read(over[0], &byte, 1) == 0);
    });
    char byte;
    MUST(read(made[0], &byte, 1) == 1);
    print_switches("tine", host);
    close(over[1]), reap(host);
    close(over[0]), close(made[0]), close(made[1]);
    if (python.is_there()) print_switches("Python's Pool", pid_t(ask("keep(" + text(workers) + ")")));
}

int main() {
    std::printf("pools: median of %d rounds%s\n", rounds(), !python.is_there() ? "; without Python: there is no python3" : "");
    beside_python("apply, 8 bytes there and back, awake, 1 worker", "us", "<= 3 us", { { "tine", [] { return apply(work(20000), 0); } } }, "apply",
                  text(work(2000)) + ", 0");
    beside_python("apply, asleep, 500 us between", "us", "<= 1.5 x two futexes", { { "tine", [] { return apply(work(2000), 500); } },
                  { "two bare futexes", [] { return futex_ping_pong(work(2000), 500) / 1000; } } }, "apply", text(work(1000)) + ", 0.0005");
    for (const uint32_t workers : { 1u, 2u, 4u }) {
        const std::string with = text(workers) + (workers == 1 ? " worker" : " workers");
        beside_python("submit, empty, with asyncs, " + with, "k/s", workers == 2 ? ">= 50 x Python" : "",
                      { { "tine", [=] { return submit_with_asyncs(workers, work(200000)) / 1000; } } }, "submit", text(workers) + ", " + text(work(5000)) + ", False");
        beside_python("submit, empty, with callbacks, " + with, "k/s", workers == 2 ? ">= 30 x Python" : "",
                      { { "tine", [=] { return submit_with_callbacks(workers, work(200000)) / 1000; } } }, "submit", text(workers) + ", " + text(work(5000)) + ", True");
    }
    beside_python("map, " + text(work(1000000)) + " items of 8 bytes, 2 workers", "k/s", "", { { "tine", [] { return map(work(1000000)) / 1000; } } }, "map_of",
                  text(work(1000000)));
    for (const uint32_t workers : { 2u, 64u })
        beside_python("a pool of " + text(workers) + " is made and runs a task", "us", "", { { "tine", [=] { return start_of(workers); } } }, "start", text(workers));
    in_a_host_of(0);
    in_a_host_of(work(100) < 50 ? 1 : 4);
    an_idle_pool_of(64);
}
