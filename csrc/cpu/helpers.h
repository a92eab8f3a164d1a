// Threads that sleep between two calls of a native kernel. A thread that wakes is given a core at once; a new one is
// queued behind whoever spins there, and the idle threads of PyTorch's OpenMP do spin for some milliseconds after each
// of its operations.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unistd.h>

class Helpers {
    struct Job {
        void (*run)(void* work, int t);
        void* work;
        int next, end, inside;    // the next to enter is number `next`; those inside have not come back
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
        delete fresh;    // somebody else was faster
        return *all;
    }

public:
    // work(0) here, and work(1) .. work(threads - 1) by whoever is free before work(0) has returned: it must be able to
    // do everything alone
    template <class F> static void share(int threads, F work) {
        if (threads < 2) return work(0);
        Helpers& all = of_this_process();
        Job job = {[](void* of, int t) { (*(F*)of)(t); }, &work, 1, threads, 0, nullptr};
        {
            std::lock_guard<std::mutex> guard(all.lock);
            try {
                for (; all.hired < threads - 1; all.hired++) std::thread([&all] { all.serve(); }).detach();
            } catch (...) {}    // no more threads to be had: those that there are take all the work
            job.later = all.jobs, all.jobs = &job;
        }
        for (int t = 1; t < threads; t++) all.come.notify_one();
        work(0);
        std::unique_lock<std::mutex> guard(all.lock);
        Job** at = &all.jobs;
        while (*at != &job) at = &(*at)->later;
        *at = job.later;    // nobody enters any more
        all.back.wait(guard, [&] { return job.inside == 0; });
    }
};
