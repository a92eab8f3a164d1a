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
        int next, end, inside;    // helpers next .. end - 1 may still enter; `inside` of them have not come back
        Job* later;
    };
    std::mutex lock;
    std::condition_variable come, back;
    Job* jobs = nullptr;
    int hired = 0;
    const int process = getpid();

    void serve() {
        std::unique_lock<std::mutex> guard(lock);
        for (;;) {
            Job* job = jobs;
            while (job && job->next == job->end) job = job->later;
            if (!job) {
                come.wait(guard);
                continue;
            }
            int t = job->next++;
            job->inside++;
            guard.unlock();
            job->run(job->work, t);
            guard.lock();
            if (--job->inside == 0) back.notify_all();
        }
    }

    static Helpers& of_this_process() {    // after a fork the child has none of its parent's threads: it hires its own
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
                for (; all.hired < threads - 1; all.hired++) std::thread([&all] { all.serve(); }).detach();
            } catch (...) {}    // the system gives no more threads: those that there are do all the work
            job.later = all.jobs, all.jobs = &job;
        }
        for (int t = 1; t < threads; t++) all.come.notify_one();
        work(0);
        std::unique_lock<std::mutex> guard(all.lock);
        Job** at = &all.jobs;
        while (*at != &job) at = &(*at)->later;
        *at = job.later;    // no helper enters any more
        all.back.wait(guard, [&] { return job.inside == 0; });
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
