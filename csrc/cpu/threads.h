// Threads of native CPU kernels, each with the same rounding: `parallel` and `each_part` share tasks between them.
//
// A thread begins with its own part of the tasks, the same part at each call: what the call before it, or an operation
// of PyTorch, which shares numbers in the same way, left in the caches of its core is there. Then it helps the others.
//
// They are the threads in which PyTorch's own operations run, where these are OpenMP's: between two operations they
// spin for some milliseconds, begin the next within a microsecond, and leave no core to other threads. Elsewhere (on
// macOS, in the drivers, in a forked child, which has none of its parent's threads) helpers of this process sleep
// between two calls of a kernel. Waking a thread takes some ten microseconds, and starting one takes longer.
#pragma once
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <cstdint>
#include <dlfcn.h>
#include <mutex>
#include <thread>
#include <unistd.h>
#include "divide.h"

// OpenMP as PyTorch has loaded it: a library of our own would bring threads of its own.
class OpenMP {
    using Parallel = void(void (*run)(void*), void* work, unsigned threads, unsigned flags);
    Parallel* const parallel = (Parallel*)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    int (*const number)() = (int (*)())dlsym(RTLD_DEFAULT, "omp_get_thread_num");
    int process = getpid();

    static OpenMP& loaded() {
        static OpenMP once;
        return once;
    }

public:
    static bool runs() { return loaded().parallel && loaded().number && loaded().process == getpid(); }
    static void forget() { loaded().process = 0; }

    // Runs work(0) .. work(threads - 1), each in a thread, or fewer of them if the team is smaller. It is as large as
    // in PyTorch's operations, whatever is needed: a team that changes its size starts its threads anew.
    template <class F> static void share(int threads, F& work) {
        struct Team {
            F& work;
            int threads;
        } team{work, threads};
        auto join = [](void* of) {
            Team& team = *(Team*)of;
            if (int t = loaded().number(); t < team.threads) team.work(t);
        };
        loaded().parallel(join, &team, 0, 0);
    }
};

// kernels/_library.py calls it in a forked child, where OpenMP would wait for threads that only the parent has
extern "C" __attribute__((used)) inline void threads_forked() { OpenMP::forget(); }

class Helpers {
    // Rounds to nearest and keeps subnormals while it lives, whatever the thread was set to
    struct Environment {
        std::fenv_t saved;
        Environment() { std::fegetenv(&saved), std::fesetenv(FE_DFL_ENV); }
        ~Environment() { std::fesetenv(&saved); }
    };
    struct Job {
        void (*run)(void* work, int t);
        void* work;
        int next, end, running;    // helpers next .. end - 1 may still begin, `running` have begun
        Job* next_job;
    };
    static constexpr int MOST_PARTS = 64;    // of the tasks: more threads begin together
    struct alignas(64) Part {                // a cache line each
        std::atomic<int64_t> next;
    };
    std::mutex lock;
    std::condition_variable work_ready, work_done;
    Job* jobs = nullptr;
    int started = 0;
    const int process = getpid();

    void loop() {
        std::unique_lock<std::mutex> guard(lock);
        for (;;) {
            Job* job = jobs;
            while (job && job->next == job->end) job = job->next_job;
            if (!job) {
                work_ready.wait(guard);
                continue;
            }
            int t = job->next++;
            job->running++;
            guard.unlock();
            job->run(job->work, t);
            guard.lock();
            if (--job->running == 0) work_done.notify_all();
        }
    }

    static Helpers& of_this_process() {    // after a fork the child has none of its parent's threads: it starts its own
        static std::atomic<Helpers*> current{nullptr};
        Helpers *all = current, *fresh;
        if (all && all->process == getpid()) return *all;
        if (current.compare_exchange_strong(all, fresh = new Helpers)) return *fresh;
        delete fresh;    // another thread was faster
        return *all;
    }

    // work(0) runs here, and work(1) .. work(threads - 1) on helpers that are free before work(0) returns. There may be
    // none: work(0) must be able to do everything alone.
    template <class F> static void share(int threads, F work) {
        if (threads < 2) return work(0);
        if (OpenMP::runs()) return OpenMP::share(threads, work);
        Helpers& all = of_this_process();
        Job job = {[](void* of, int t) { (*(F*)of)(t); }, &work, 1, threads, 0, nullptr};
        {
            std::lock_guard<std::mutex> guard(all.lock);
            try {
                for (; all.started < threads - 1; all.started++) std::thread([&all] { all.loop(); }).detach();
            } catch (...) {}    // the system gives no more threads: those that there are do all the work
            job.next_job = all.jobs, all.jobs = &job;
        }
        for (int t = 1; t < threads; t++) all.work_ready.notify_one();
        work(0);
        std::unique_lock<std::mutex> guard(all.lock);
        Job** at = &all.jobs;
        while (*at != &job) at = &(*at)->next_job;
        *at = job.next_job;    // no helper begins any more
        all.work_done.wait(guard, [&] { return job.running == 0; });    // what they wrote is there for all to read
    }

public:
    template <class F> static void parallel(int64_t tasks, int threads, F work) {
        threads = int(std::min<int64_t>(threads, tasks));
        const int parts = std::min(threads, MOST_PARTS);
        auto first = [&](int part) { return tasks / parts * part + std::min<int64_t>(part, tasks % parts); };
        Part part[MOST_PARTS];
        for (int i = 0; i < parts; i++) part[i].next = first(i);
        share(threads, [&](int t) {
            Environment environment;
            for (int i = 0; i < parts; i++) {
                const int own = (t + i) % parts;
                for (int64_t task; (task = part[own].next++) < first(own + 1);) work(task, t);
            }
        });
    }
};

namespace {

// work(task, thread) for each task 0 .. tasks - 1. A free thread takes a task of another; all are done at the end.
template <class F> void parallel(int64_t tasks, int threads, F work) { Helpers::parallel(tasks, threads, work); }

constexpr int64_t PART = 4096;    // numbers of a task, about: a multiple of 4
#ifndef WORTH_A_THREAD    // nanoseconds of work, more than it takes to begin in a thread; in the drivers 1
#define WORTH_A_THREAD (OpenMP::runs() ? 10e3 : 50e3)
#endif

// How many of the threads it is worth waking for so many numbers, each of which takes one thread so many nanoseconds
inline int worth_waking(int threads, int64_t numbers, double each) {
    return int(std::clamp<double>(numbers * each / WORTH_A_THREAD, 1, threads));
}

// How many rows of D numbers make a task
inline int64_t rows_of_a_task(int64_t D) { return std::max<int64_t>(1, PART / std::max<int64_t>(1, D)); }

// The bytes of an array from which on the C library takes its memory anew from the system, which gives each page when a
// number is first written there. That breaks off the streams of what a kernel reads: it begins 64 pages at once
constexpr int64_t ALWAYS_NEW = 32 << 20, PAGE = 4096, PAGES = 64;

// work(n0, n1, d0, d1) for all of an (N, D) array: a part is some short rows, or a part of a long one, and a task is
// one, or several if y is large, the dense (N, D) array that `work` fills. A number takes `each` nanoseconds.
template <class T, class F> void each_part(int64_t N, int64_t D, int threads, double each, T* y, F work) {
    const int64_t rows = rows_of_a_task(D), of_a_row = ceil_div(D, PART), parts = ceil_div(N, rows) * of_a_row;
    const bool fresh = y && N * D * int64_t(sizeof(T)) >= ALWAYS_NEW;
    const int64_t of_a_task = fresh ? PAGES * PAGE / int64_t(PART * sizeof(T)) : 1;
    auto start = [&](int64_t part) { return std::min(N * D, part / of_a_row * rows * D + part % of_a_row * PART); };
    parallel(ceil_div(parts, of_a_task), worth_waking(threads, N * D, each), [&](int64_t task, int) {
        const int64_t first = task * of_a_task, end = std::min(parts, first + of_a_task);
        for (int64_t i = start(first); fresh && i < start(end); i += PAGE / int64_t(sizeof(T))) y[i] = T();
        for (int64_t part = first; part < end; part++) {
            int64_t n = part / of_a_row * rows, d = part % of_a_row * PART;
            work(n, std::min(N, n + rows), d, std::min(D, d + PART));
        }
    });
}
template <class F> void each_part(int64_t N, int64_t D, int threads, double each, F work) {
    each_part(N, D, threads, each, (char*)nullptr, work);
}

}    // namespace
