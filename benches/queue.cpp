/*
 * The queue beside what a C or C++ program would take instead: Boost's message_queue (where its headers are), POSIX mq, a pipe,
 * and a bare ring that spins and survives nothing. Every byte is written by the producer and checked by the consumer.
 */
#include "bench.h"

#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>

#include <memory>
#if __has_include(<boost/interprocess/ipc/message_queue.hpp>)
#include <boost/interprocess/ipc/message_queue.hpp>
#define HAS_BOOST 1
#endif

struct Queue {
    virtual ~Queue() = default;
    virtual void put(const void *data, size_t length) = 0;
    virtual size_t get(void *buffer, size_t capacity) = 0;
};
struct Tine : Queue {
    tine_queue_t *queue;
    int64_t timeout_ms;
    Tine(size_t capacity, size_t length, int64_t timeout_ms = TINE_FOREVER) : timeout_ms(timeout_ms) {
        tine_queue_options_t options = TINE_QUEUE_OPTIONS_INIT;
        options.capacity = capacity, options.capacity_bytes = capacity * (length + 8);
        TINE(tine_queue_new(&options, &queue));
    }
    ~Tine() override { tine_queue_free(queue); }
    void put(const void *data, size_t length) override { TINE(tine_queue_put(queue, data, length, timeout_ms)); }
    size_t get(void *buffer, size_t capacity) override {
        size_t length;
        TINE(tine_queue_get(queue, buffer, capacity, timeout_ms, &length));
        return length;
    }
};
struct PosixMq : Queue {
    mqd_t queue;
    PosixMq(size_t, size_t length) {
        mq_attr attributes = {};
        const std::string name = "/tine_bench_" + std::to_string(getpid());
        attributes.mq_maxmsg = 10, attributes.mq_msgsize = long(length); /* 10: what the kernel allows without privileges */
        queue = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
        MUST(queue != mqd_t(-1));
        mq_unlink(name.c_str());
    }
    ~PosixMq() override { mq_close(queue); }
    void put(const void *data, size_t length) override { MUST(mq_send(queue, static_cast<const char *>(data), length, 0) == 0); }
    size_t get(void *buffer, size_t capacity) override {
        const ssize_t length = mq_receive(queue, static_cast<char *>(buffer), capacity, nullptr);
        MUST(length >= 0);
        return size_t(length);
    }
};
#ifdef HAS_BOOST
struct Boost : Queue {
    std::string name = "tine_bench_" + std::to_string(getpid());
    std::unique_ptr<boost::interprocess::message_queue> queue;
    Boost(size_t capacity, size_t length) {
        boost::interprocess::message_queue::remove(name.c_str());
        queue.reset(new boost::interprocess::message_queue(boost::interprocess::create_only, name.c_str(), capacity, length));
    }
    ~Boost() override { boost::interprocess::message_queue::remove(name.c_str()); }
    void put(const void *data, size_t length) override { queue->send(data, length, 0); }
    size_t get(void *buffer, size_t capacity) override {
        boost::interprocess::message_queue::size_type length;
        unsigned priority;
        queue->receive(buffer, capacity, length, priority);
        return length;
    }
};
#endif
/* One writer and one reader, messages of one length. */
struct Pipe : Queue {
    int ends[2];
    size_t length;
    Pipe(size_t, size_t length) : length(length) { MUST(pipe(ends) == 0), fcntl(ends[0], F_SETPIPE_SZ, 1 << 20); }
    ~Pipe() override { close(ends[0]), close(ends[1]); }
    void put(const void *data, size_t count) override {
        for (const char *at = static_cast<const char *>(data); count > 0;) {
            const ssize_t written = write(ends[1], at, count);
            MUST(written > 0);
            at += written, count -= size_t(written);
        }
    }
    size_t get(void *buffer, size_t) override {
        for (size_t got = 0; got < length;) {
            const ssize_t count = read(ends[0], static_cast<char *>(buffer) + got, length - got);
            MUST(count > 0);
            got += size_t(count);
        }
        return length;
    }
};
/* Dmitry Vyukov's bounded queue of cells with sequence numbers, spinning: what no kill-proof queue can be expected to beat. */
struct Ring : Queue {
    struct alignas(64) Cell { std::atomic<uint64_t> sequence; size_t length; char data[]; };
    struct Ends { alignas(64) std::atomic<uint64_t> head; alignas(64) std::atomic<uint64_t> tail; };
    size_t capacity, stride;
    Ends *ends;
    char *cells;
    Ring(size_t capacity, size_t length) : capacity(capacity), stride((sizeof(Cell) + length + 63) / 64 * 64) {
        ends = shared_memory<Ends>(), cells = shared_memory<char>(stride * capacity);
        for (size_t i = 0; i < capacity; i++) cell(i)->sequence = i;
    }
    ~Ring() override { munmap(ends, sizeof *ends), munmap(cells, stride * capacity); }
    Cell *cell(uint64_t number) { return reinterpret_cast<Cell *>(cells + number % capacity * stride); }
    /* The cell that is next at an end, once its sequence number is so far ahead of the end's position. */
    Cell *take(std::atomic<uint64_t> &end, uint64_t ahead, uint64_t *out_number) {
        uint64_t number = end.load(std::memory_order_relaxed);
        for (unsigned turn = 1;; turn++) {
            Cell *next = cell(number);
            const auto behind = int64_t(next->sequence.load(std::memory_order_acquire) - number - ahead);
            if (behind == 0 && end.compare_exchange_weak(number, number + 1, std::memory_order_relaxed)) return *out_number = number, next;
            if (behind < 0) turn % 64 ? __builtin_ia32_pause() : (void)sched_yield();
            if (behind != 0) number = end.load(std::memory_order_relaxed);
        }
    }
    void put(const void *data, size_t length) override {
        uint64_t number;
        Cell *mine = take(ends->tail, 0, &number);
        std::memcpy(mine->data, data, length), mine->length = length;
        mine->sequence.store(number + 1, std::memory_order_release);
    }
    size_t get(void *buffer, size_t) override {
        uint64_t number;
        Cell *mine = take(ends->head, 1, &number);
        const size_t length = mine->length;
        std::memcpy(buffer, mine->data, length);
        mine->sequence.store(number + capacity, std::memory_order_release);
        return length;
    }
};

/* Word i of message n of producer p: nothing of it is the same in the next message. */
static uint64_t word(uint64_t producer, uint64_t number, uint64_t i) { return (producer << 56 | number) * 0x9e3779b97f4a7c15 + i; }

using Make = std::function<std::unique_ptr<Queue>(size_t capacity, size_t length)>;
template <class Q> static Make make() {
    return [](size_t capacity, size_t length) { return std::unique_ptr<Queue>(new Q(capacity, length)); };
}

/* Messages a second. Started together by a gate; the clock stops when the last message was checked. */
static double throughput(const Make &make, int producers, int consumers, size_t length, long messages) {
    const size_t capacity = length > 4096 ? 64 : 1024;
    const std::unique_ptr<Queue> queue = make(capacity, length);
    const long each = std::max(1L, messages / producers / consumers) * consumers, total = each * producers;
    auto *gate = shared_memory<std::atomic<int>>();
    const auto wait = [=] { for (++*gate; *gate >= 0;) sched_yield(); };
    std::vector<pid_t> pids;
    for (int p = 0; p < producers; p++)
        pids.push_back(runner(p, [&, p] {
            std::vector<uint64_t> message(length / 8);
            wait();
            for (long n = 0; n < each; n++) {
                message[0] = uint64_t(p) << 56 | uint64_t(n);
                for (size_t i = 1; i < message.size(); i++) message[i] = word(uint64_t(p), uint64_t(n), i);
                queue->put(message.data(), length);
            }
        }));
    for (int c = 0; c < consumers; c++)
        pids.push_back(runner(c + (producers == 1), [&] {
            std::vector<uint64_t> message(length / 8);
            std::vector<int64_t> last(size_t(producers), -1);
            wait();
            for (long n = 0; n < total / consumers; n++) {
                MUST(queue->get(message.data(), length) == length);
                const uint64_t producer = message[0] >> 56, number = message[0] << 8 >> 8;
                uint64_t wrong = 0;
                for (size_t i = 1; i < message.size(); i++) wrong |= message[i] ^ word(producer, number, i);
                MUST(wrong == 0 && producer < uint64_t(producers) && int64_t(number) > last[producer]);
                last[producer] = int64_t(number);
            }
        }));
    while (*gate < producers + consumers) usleep(100);
    const double start = seconds();
    *gate = -1000;
    for (const pid_t pid : pids) reap(pid);
    const double took = seconds() - start;
    munmap(gate, sizeof *gate);
    return double(total) / took;
}
/* Messages a second between two threads with one handle. */
static double between_threads(const Make &make, size_t length, long messages) {
    struct Job { Queue *queue; size_t length; long messages; };
    const std::unique_ptr<Queue> queue = make(1024, length);
    Job job = { queue.get(), length, messages };
    pthread_t thread;
    cpu_set_t before;
    MUST(sched_getaffinity(0, sizeof before, &before) == 0);
    pin(0);
    const double start = seconds();
    MUST(pthread_create(&thread, nullptr, [](void *data) -> void * {
        const Job *job = static_cast<Job *>(data);
        std::vector<uint64_t> message(job->length / 8);
        for (pin(1), message[0] = 0; message[0] < uint64_t(job->messages); message[0]++) {
            for (size_t i = 1; i < message.size(); i++) message[i] = word(0, message[0], i);
            job->queue->put(message.data(), job->length);
        }
        return nullptr;
    }, &job) == 0);
    std::vector<uint64_t> message(length / 8);
    for (uint64_t n = 0; n < uint64_t(messages); n++) {
        MUST(queue->get(message.data(), length) == length && message[0] == n);
        uint64_t wrong = 0;
        for (size_t i = 1; i < message.size(); i++) wrong |= message[i] ^ word(0, n, i);
        MUST(wrong == 0);
    }
    const double took = seconds() - start;
    pthread_join(thread, nullptr);
    MUST(sched_setaffinity(0, sizeof before, &before) == 0);
    return double(messages) / took;
}
/* Messages a second, written where they lie in the queue and read there; or else copied in and out. Each byte is written and checked. */
static double large(bool in_place, size_t capacity, size_t length, long messages) {
    Tine tine(capacity, length);
    auto *took = shared_memory<double>();
    const pid_t producer = runner(0, [&] {
        std::vector<uint64_t> own(length / 8);
        for (long n = 0; n < messages; n++) {
            void *place = own.data();
            if (in_place) TINE(tine_queue_reserve(tine.queue, length, TINE_FOREVER, &place));
            auto *words = static_cast<uint64_t *>(place);
            for (size_t i = 0; i < own.size(); i++) words[i] = word(0, uint64_t(n), i);
            if (in_place) TINE(tine_queue_commit(tine.queue, length));
            else tine.put(place, length);
        }
    });
    reap(runner(1, [&] {
        std::vector<uint64_t> own(length / 8);
        const double start = seconds();
        for (long n = 0; n < messages; n++) {
            const void *place = own.data();
            size_t got = length;
            if (in_place) TINE(tine_queue_peek(tine.queue, TINE_FOREVER, &place, &got));
            else got = tine.get(own.data(), length);
            MUST(got == length);
            uint64_t wrong = 0;
            const auto *words = static_cast<const uint64_t *>(place);
            for (size_t i = 0; i < own.size(); i++) wrong |= words[i] ^ word(0, uint64_t(n), i);
            MUST(wrong == 0);
            if (in_place) TINE(tine_queue_release(tine.queue));
        }
        *took = seconds() - start;
    }));
    reap(producer);
    const double each = *took / double(messages);
    munmap(took, sizeof *took);
    return 1 / each;
}
/* ns of a message there and one back. Pausing longer than anybody spins makes both sides sleep each time. */
static double round_trip(const Make &make, long trips, long pause_us) {
    const std::unique_ptr<Queue> there = make(64, 64), back = make(64, 64);
    auto *spent = shared_memory<double>();
    const pid_t answering = runner(1, [&] {
        char message[64];
        for (long n = 0; n < trips; n++) there->get(message, sizeof message), back->put(message, sizeof message);
    });
    reap(runner(0, [&] {
        char message[64] = {}, answer[64];
        for (long n = 0; n < trips; n++) {
            if (pause_us > 0) usleep(useconds_t(pause_us));
            const double start = seconds();
            std::memcpy(message, &n, sizeof n);
            there->put(message, sizeof message);
            MUST(back->get(answer, sizeof answer) == sizeof answer && std::memcmp(message, answer, sizeof answer) == 0);
            *spent += seconds() - start;
        }
    }));
    reap(answering);
    const double each = *spent / double(trips) * 1e9;
    munmap(spent, sizeof *spent);
    return each;
}
/* The least that two processors need to tell each other something. */
static double cache_line_ping_pong(long trips) {
    struct Line { alignas(64) std::atomic<long> there; alignas(64) std::atomic<long> back; };
    auto *line = shared_memory<Line>();
    auto *took = shared_memory<double>();
    const pid_t answering = runner(1, [=] {
        for (long n = 1; n <= trips; n++) {
            while (line->there.load(std::memory_order_acquire) != n) __builtin_ia32_pause();
            line->back.store(n, std::memory_order_release);
        }
    });
    reap(runner(0, [=] {
        const double start = seconds();
        for (long n = 1; n <= trips; n++) {
            line->there.store(n, std::memory_order_release);
            while (line->back.load(std::memory_order_acquire) != n) __builtin_ia32_pause();
        }
        *took = seconds() - start;
    }));
    reap(answering);
    const double each = *took / double(trips) * 1e9;
    munmap(line, sizeof *line), munmap(took, sizeof *took);
    return each;
}
static void what_an_object_costs() {
    enum { COUNT = 1000 };
    const auto fds = [] { int count = 0; for (int fd = 0; fd < 65536; fd++) count += fcntl(fd, F_GETFD) != -1; return count; };
    const auto resident = [] {
        long pages = 0, resident = 0;
        std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen("/proc/self/statm", "re"), std::fclose);
        MUST(file != nullptr && std::fscanf(file.get(), "%ld %ld", &pages, &resident) == 2);
        return resident * sysconf(_SC_PAGESIZE);
    };
    std::vector<tine_queue_t *> queues(COUNT);
    std::vector<tine_lock_t *> locks(COUNT);
    std::vector<tine_semaphore_t *> semaphores(COUNT);
    const auto tell = [&](const char *what, const std::function<void()> &make, const std::function<void()> &unmake) {
        const int fds_before = fds();
        const long bytes_before = resident();
        double start = seconds();
        make();
        const double made = seconds() - start;
        const double fds_each = double(fds() - fds_before) / COUNT, bytes_each = double(resident() - bytes_before) / COUNT;
        start = seconds();
        unmake();
        std::printf("    %-44s %.3f descriptors, %.0f resident bytes, made in %.2f us, freed in %.2f us\n", what, fds_each, bytes_each, made / COUNT * 1e6,
                    (seconds() - start) / COUNT * 1e6);
    };
    std::printf("an object, of %d\n", COUNT);
    tell("queue", [&] { for (auto &queue : queues) TINE(tine_queue_new(nullptr, &queue)); }, [&] { for (auto queue : queues) tine_queue_free(queue); });
    tell("lock", [&] { for (auto &lock : locks) TINE(tine_lock_new(nullptr, &lock)); }, [&] { for (auto lock : locks) tine_lock_free(lock); });
    tell("semaphore", [&] { for (auto &one : semaphores) TINE(tine_semaphore_new(0, 1, nullptr, &one)); }, [&] { for (auto one : semaphores) tine_semaphore_free(one); });
}

int main() {
    const Make tine = make<Tine>(), ring = make<Ring>(), pipe = make<Pipe>(), mq = make<PosixMq>();
    std::printf("queues: median of %d rounds; every byte written and checked\n", rounds());
    const auto many = [&](const char *what, const char *goal, int producers, int consumers, size_t length, long messages, bool with_all) {
        const auto against = [&](const char *name, const Make &make, long fewer) {
            return Contestant{ name, [=] { return throughput(make, producers, consumers, length, work(messages / fewer)) / 1000; } };
        };
        std::vector<Contestant> contestants = { against("tine", tine, 1) };
#ifdef HAS_BOOST
        contestants.push_back(against("boost message_queue", make<Boost>(), 2));
#endif
        contestants.push_back(against("bare ring, spinning", ring, 1));
        if (with_all) contestants.push_back(against("POSIX mq", mq, 8));
        if (with_all && producers == 1) contestants.push_back(against("pipe", pipe, 4));
        row(what, "k/s", goal, contestants);
    };
    many("64 B, 1 producer, 1 consumer", ">= 3 x Boost", 1, 1, 64, 2000000, true);
    many("64 B, 2 x 2", ">= 3.5 x Boost", 2, 2, 64, 2000000, true);
    many("64 B, 4 x 4", ">= 3.5 x Boost", 4, 4, 64, 2000000, false);
    many("1 KiB, 1 x 1", "", 1, 1, 1024, 500000, true);
    many("64 KiB, 1 x 1", ">= 2 x Boost", 1, 1, 65536, 20000, false);
    for (const size_t capacity : { size_t(64), size_t(4) })
        row("64 KiB in place, a ring of " + std::to_string(capacity) + " messages", "k/s", ">= 1.3 x put and get", {
            { "tine, reserve and commit, peek and release", [=] { return large(true, capacity, 65536, work(20000)) / 1000; } },
            { "tine, put and get", [=] { return large(false, capacity, 65536, work(20000)) / 1000; } } });
    row("64 B, 4 x 4 beside 2 x 2", "k/s", ">= 0.8 x", {
        { "tine 4 x 4", [&] { return throughput(tine, 4, 4, 64, work(2000000)) / 1000; } },
        { "tine 2 x 2", [&] { return throughput(tine, 2, 2, 64, work(2000000)) / 1000; } } });
    row("64 B, put and get with a finite timeout", "k/s", ">= 0.95 x", {
        { "timeout 10 s", [&] { return throughput([](size_t c, size_t l) { return std::unique_ptr<Queue>(new Tine(c, l, 10000)); }, 1, 1, 64, work(2000000)) / 1000; } },
        { "TINE_FOREVER", [&] { return throughput(tine, 1, 1, 64, work(2000000)) / 1000; } } });
    row("64 B, two threads with one handle", "k/s", "", {
        { "tine, threads", [&] { return between_threads(tine, 64, work(2000000)) / 1000; } },
        { "tine, processes", [&] { return throughput(tine, 1, 1, 64, work(2000000)) / 1000; } },
        { "bare ring, threads", [&] { return between_threads(ring, 64, work(2000000)) / 1000; } } });
    row("round trip awake", "ns", "<= 1.5 x ping-pong", {
        { "tine", [&] { return round_trip(tine, work(200000), 0); } },
        { "cache line ping-pong", [&] { return cache_line_ping_pong(work(500000)); } },
        { "bare ring, spinning", [&] { return round_trip(ring, work(200000), 0); } },
#ifdef HAS_BOOST
        { "boost message_queue", [&] { return round_trip(make<Boost>(), work(20000), 0); } },
#endif
        { "pipe", [&] { return round_trip(pipe, work(20000), 0); } } });
    row("round trip asleep, 500 us between", "ns", "<= 1.3 x two futexes", {
        { "tine", [&] { return round_trip(tine, work(2000), 500); } },
        { "two bare futexes", [&] { return futex_ping_pong(work(2000), 500); } },
        { "pipe", [&] { return round_trip(pipe, work(2000), 500); } },
#ifdef HAS_BOOST
        { "boost message_queue", [&] { return round_trip(make<Boost>(), work(2000), 500); } },
#endif
        });
    what_an_object_costs();
}
