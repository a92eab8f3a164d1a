# For gdb, on x86-64: source csrc/emulator/emulator.gdb

define cuda-thread
    set $thread = &emulator::block->thread[$arg0]
    if $thread->state != emulator::WAITING || $thread == emulator::self
        printf "thread %d runs or has returned\n", $arg0
    else
        # what switch_stack pushed: r15 r14 r13 r12 rbx rbp, then the address to return to
        set $saved_rsp = $rsp
        set $saved_rip = $rip
        set $saved_rbp = $rbp
        set $there = (long*)$thread->stopped_at
        set $rsp = (long)($there + 7)
        set $rip = $there[6]
        set $rbp = $there[5]
        backtrace
        set $rsp = $saved_rsp
        set $rip = $saved_rip
        set $rbp = $saved_rbp
    end
end
document cuda-thread
cuda-thread N: where thread N of this block waits, as a backtrace (compiled with -O0).
end

define cuda-threads
    set $first = 0
    set $i = 1
    while $first < emulator::block->size
        set $a = &emulator::block->thread[$first]
        set $b = &emulator::block->thread[$i]
        if $i < emulator::block->size && $a->state == $b->state && $a->place.line == $b->place.line \
           && $a != emulator::self && $b != emulator::self
            set $i = $i + 1
        else
            if $a == emulator::self
                printf "thread %d is where you are\n", $first
            else
                printf "threads %d-%d ", $first, $i - 1
                if $a->state == emulator::READY
                    printf "are ready to run\n"
                end
                if $a->state == emulator::WAITING
                    printf "wait at %s, line %d\n", $a->what, $a->place.line
                end
                if $a->state == emulator::RETURNED
                    printf "have returned\n"
                end
            end
            set $first = $i
            set $i = $i + 1
        end
    end
end
document cuda-threads
cuda-threads: what the threads of this block do.
end
