// The data bus of a DRAM, shared by all ports and both directions: who has it, and from when.
//
// Every burst is a row access: its row is opened as soon as the burst is known and the bank has
// nothing older to do, which costs time only when no other bank moves data meanwhile.  Refreshes
// close all rows.  Times are cycles in fixed point, as in vitrify.arch.dram.
#pragma once

#include <cstdint>
#include <vector>

namespace {

struct Controller {
    uint32_t byte = 0;  // time of a byte; 0: there is no shared bus
    uint32_t refresh_interval = 0, refresh = 0;
    uint32_t turnaround = 0, row_miss = 0;
    uint32_t row_bytes = 8192, banks = 1;
    uint32_t turn_bursts = 16;  // of one direction before the other has its turn

    struct Bank {
        uint64_t row = ~uint64_t(0);
        uint64_t free = 0;
    };
    std::vector<Bank> rows;
    uint64_t free = 0;  // end of the last data
    uint64_t next_refresh = 0;
    bool writing = false;
    uint32_t served = 0;  // bursts since the direction changed
    uint64_t busy = 0;    // time with data

    void forget() {
        rows.assign(banks, Bank());
        free = 0;
        next_refresh = refresh_interval;
        served = 0;
    }

    // Whether the direction goes on, given which of them have something to do.
    bool stays(bool same, bool other) const { return same && !(other && served >= turn_bursts); }

    // Data of a burst that came at `arrival`: their first moment; the last one is `free` then.
    uint64_t serve(uint64_t address, uint32_t bytes, bool write, uint64_t arrival) {
        uint64_t start = free > arrival ? free : arrival;
        if (write != writing) {
            start = (free + turnaround > arrival) ? free + turnaround : arrival;
            writing = write;
            served = 0;
        }
        ++served;
        if (refresh_interval) {
            // While nothing moved, refreshes were over in time.
            while (next_refresh + refresh <= start) next_refresh += refresh_interval;
            if (next_refresh <= start) {
                start = next_refresh + refresh;
                next_refresh += refresh_interval;
                for (Bank& bank : rows) bank.row = ~uint64_t(0);
            }
        }
        const uint64_t row = address / row_bytes;
        Bank& bank = rows[row % banks];
        if (bank.row != row) {
            uint64_t open = (bank.free > arrival ? bank.free : arrival) + row_miss;
            if (open > start) start = open;
            bank.row = row;
        }
        free = start + uint64_t(bytes) * byte;
        bank.free = free;
        busy += free - start;
        return start;
    }
};

}  // namespace
