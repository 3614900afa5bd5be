/*
 * Lock, semaphore and event beside glibc's process-shared ones: free, and fought over by as many and by twice as many processes as
 * there are processors.
 */
#include "bench.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/file.h>

struct Mutex {
    pthread_mutex_t *mutex = shared_memory<pthread_mutex_t>();
    explicit Mutex(bool robust) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        if (robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        MUST(pthread_mutex_init(mutex, &attributes) == 0);
    }
    ~Mutex() { munmap(mutex, sizeof *mutex); }
    void acquire() { MUST(pthread_mutex_lock(mutex) == 0); }
    void release() { MUST(pthread_mutex_unlock(mutex) == 0); }
};
struct GlibcRobust : Mutex { GlibcRobust() : Mutex(true) {} };
struct GlibcPlain : Mutex { GlibcPlain() : Mutex(false) {} };
struct TineLock {
    tine_lock_t *lock;
    TineLock() { TINE(tine_lock_new(nullptr, &lock)); }
    ~TineLock() { tine_lock_free(lock); }
    void acquire() { TINE(tine_lock_acquire(lock, TINE_FOREVER)); }
    void release() { TINE(tine_lock_release(lock)); }
};
struct GlibcSemaphore {
    sem_t *semaphore = shared_memory<sem_t>();
    GlibcSemaphore() { MUST(sem_init(semaphore, 1, 1) == 0); }
    ~GlibcSemaphore() { munmap(semaphore, sizeof *semaphore); }
    void acquire() { while (sem_wait(semaphore) != 0) MUST(errno == EINTR); }
    void release() { MUST(sem_post(semaphore) == 0); }
};
template <uint32_t FLAGS> struct TineSemaphore {
    tine_semaphore_t *semaphore;
    TineSemaphore() {
        tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
        options.flags = FLAGS;
        TINE(tine_semaphore_new(1, 0, &options, &semaphore));
    }
    ~TineSemaphore() { tine_semaphore_free(semaphore); }
    void acquire() { TINE(tine_semaphore_acquire(semaphore, TINE_FOREVER)); }
    void release() { TINE(tine_semaphore_release(semaphore, 1)); }
};
struct Flock {
    FILE *file = std::tmpfile();
    ~Flock() { std::fclose(file); }
    void acquire() { MUST(flock(fileno(file), LOCK_EX) == 0); }
    void release() { MUST(flock(fileno(file), LOCK_UN) == 0); }
};

/* ns of one acquire and release that nobody else wants. */
template <class L> static double alone(long pairs) {
    L lock;
    const double start = seconds();
    for (long i = 0; i < pairs; i++) lock.acquire(), lock.release();
    return (seconds() - start) / double(pairs) * 1e9;
}
/* ns of one pair, of all that so many processes do together; the counter inside shows that nobody was let in twice. */
template <class L> static double fought_over(int runners, long pairs) {
    L lock;
    auto *counter = shared_memory<volatile long>();
    std::vector<pid_t> pids;
    const double start = seconds();
    for (int i = 0; i < runners; i++)
        pids.push_back(runner(i, [&] {
            for (long n = 0; n < pairs / runners; n++) lock.acquire(), *counter = *counter + 1, lock.release();
        }));
    for (const pid_t pid : pids) reap(pid);
    const double took = seconds() - start;
    MUST(*counter == pairs / runners * runners);
    munmap(const_cast<long *>(counter), sizeof *counter);
    return took / double(pairs) * 1e9;
}
/* ns there and back of two semaphores whose sides sleep. */
template <class L> static double ping_pong(long trips) {
    L there, back;
    there.acquire(), back.acquire();
    auto *took = shared_memory<double>();
    const pid_t answering = runner(1, [&] { for (long n = 0; n < trips; n++) there.acquire(), back.release(); });
    reap(runner(0, [&] {
        const double start = seconds();
        for (long n = 0; n < trips; n++) there.release(), back.acquire();
        *took = seconds() - start;
    }));
    reap(answering);
    const double each = *took / double(trips) * 1e9;
    munmap(took, sizeof *took);
    return each;
}

int main() {
    std::printf("locks and semaphores: median of %d rounds\n", rounds());
    pin(0);
    row("lock, free", "ns", "<= 0.8 x glibc robust", {
        { "tine_lock", [] { return alone<TineLock>(work(2000000)); } },
        { "glibc robust mutex", [] { return alone<GlibcRobust>(work(2000000)); } },
        { "glibc mutex, not robust", [] { return alone<GlibcPlain>(work(2000000)); } },
        { "flock(2)", [] { return alone<Flock>(work(200000)); } } });
    for (const int runners : { 2, 4 })
        row("lock, " + std::to_string(runners) + " processes fight", "ns", "", {
            { "tine_lock", [=] { return fought_over<TineLock>(runners, work(1000000)); } },
            { "glibc robust mutex", [=] { return fought_over<GlibcRobust>(runners, work(1000000)); } },
            { "glibc mutex, not robust", [=] { return fought_over<GlibcPlain>(runners, work(1000000)); } } });
    row("semaphore, free", "ns", "<= 1.0 x glibc", {
        { "tine_semaphore", [] { return alone<TineSemaphore<0>>(work(2000000)); } },
        { "glibc sem_t", [] { return alone<GlibcSemaphore>(work(2000000)); } } });
    if (tine_semaphore_t *tracked = nullptr; [&] {
            tine_semaphore_options_t options = TINE_SEMAPHORE_OPTIONS_INIT;
            options.flags = TINE_SEMAPHORE_TRACKED;
            const bool made = tine_semaphore_new(1, 0, &options, &tracked) == TINE_OK;
            tine_semaphore_free(tracked);
            return made;
        }())
        row("tracked semaphore, free", "ns", "<= 3 x glibc", {
            { "tine_semaphore, tracked", [] { return alone<TineSemaphore<TINE_SEMAPHORE_TRACKED>>(work(2000000)); } },
            { "glibc sem_t", [] { return alone<GlibcSemaphore>(work(2000000)); } } });
    for (const int runners : { 2, 4 })
        row("semaphore of 1, " + std::to_string(runners) + " processes fight", "ns", "", {
            { "tine_semaphore", [=] { return fought_over<TineSemaphore<0>>(runners, work(500000)); } },
            { "glibc sem_t", [=] { return fought_over<GlibcSemaphore>(runners, work(500000)); } } });
    row("semaphore ping-pong, round trip", "ns", "", {
        { "tine_semaphore", [] { return ping_pong<TineSemaphore<0>>(work(50000)); } },
        { "glibc sem_t", [] { return ping_pong<GlibcSemaphore>(work(50000)); } } });
}
