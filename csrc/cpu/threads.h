// Threads of native CPU kernels, each with the same rounding, and the part of a workspace that belongs to each.
//
// The threads sleep between two calls of a kernel. Waking a thread is faster than starting one: a new thread waits for
// a core while idle threads of the caller's OpenMP pool spin, some milliseconds after each of its operations.
#pragma once
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <unistd.h>

class Helpers {
    struct Job {
        void (*run)(void* work, int t);
        void* work;
        int next, end, running;    // helpers next .. end - 1 may still begin, `running` have begun
        Job* next_job;
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

public:
    // work(0) runs here, and work(1) .. work(threads - 1) on helpers that are free before work(0) returns. There may be
    // none: work(0) must be able to do everything alone.
    template <class F> static void share(int threads, F work) {
        if (threads < 2) return work(0);
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
        all.work_done.wait(guard, [&] { return job.running == 0; });
    }
};

namespace {

// Rounds to nearest and keeps subnormals while it lives, whatever the thread was set to
struct Environment {
    std::fenv_t saved;
    Environment() { std::fegetenv(&saved), std::fesetenv(FE_DFL_ENV); }
    ~Environment() { std::fesetenv(&saved); }
};

// work(task, thread) for each task 0 .. tasks - 1. A free thread takes the next task.
template <class F> void parallel(int64_t tasks, int threads, F work) {
    std::atomic<int64_t> next{0};
    auto run = [&](int t) {
        Environment environment;
        for (int64_t task; (task = next++) < tasks;) work(task, t);
    };
    Helpers::share(int(std::min<int64_t>(threads, tasks)), run);
}

// Where the numbers from `numbers_before` on lie in a workspace, whose first number begins a cache line
template <class T> T* aligned(void* workspace, int64_t numbers_before) {
    return (T*)((uintptr_t(workspace) + 63) / 64 * 64) + numbers_before;
}

}    // namespace
