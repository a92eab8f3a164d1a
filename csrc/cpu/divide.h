// How native kernels divide: numbers into tiles or tasks, and a workspace into arrays.
#pragma once
#include <cstdint>

namespace {

// How many tiles of this size hold so many, and how many their tiles could hold
inline int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }
inline int64_t whole(int64_t count, int64_t size) { return ceil_div(count, size) * size; }

// Divides a workspace, the memory that the caller brings, into arrays that begin a cache line. Without memory it only
// counts: the function that takes the arrays then tells how many bytes they need.
class Arena {
    static constexpr int64_t LINE = 64;    // bytes of a cache line
    int64_t begin, end;                    // addresses

public:
    explicit Arena(void* workspace = nullptr) : begin(whole(int64_t(workspace), LINE)), end(begin) {}
    template <class T> T* take(int64_t count) {
        T* array = (T*)end;
        end += whole(count * int64_t(sizeof(T)), LINE);
        return array;
    }
    int64_t bytes() const { return end - begin + LINE; }    // enough, wherever the workspace begins
};

}    // namespace
