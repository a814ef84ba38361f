// The world around a verilated board: clock, a serial line and an SDRAM.  Driven through a C
// interface from Python (vitrify.cosim.board).
//
// Compile-time settings: VFY_FST (1: waveforms), VFY_SDRAM_BITS (16, 32: bits of a word).

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "Vcore.h"
#include "verilated.h"
#if VFY_FST
#include "verilated_fst_c.h"
#endif

namespace {

#if VFY_SDRAM_BITS == 16
using Word = uint16_t;
#else
using Word = uint32_t;
#endif

// Cycles of the chip's timing, and its geometry.
struct Timing {
    uint32_t column_bits, bank_bits, row_bits;
    uint32_t trcd, trp, tras, trfc, twr, refresh;
    uint32_t delay;  // cycles from a READ on the pins to its data at the controller's input
};

// Ways in which the controller broke the chip's rules; zero when it did not.
enum Fault : uint32_t {
    kNone = 0,
    kNotOpen = 1,      // READ or WRITE in a bank without an open row
    kAlreadyOpen = 2,  // ACTIVE or REFRESH while a row is open
    kTooEarly = 3,     // a command before its time
    kForgotten = 4,    // too few REFRESH commands
    kContention = 5,   // chip and controller drive the data lines at once
};

struct Bank {
    bool open = false;
    uint32_t row = 0;
    int64_t opened = -1000, closed = -1000, written = -1000;
};

struct Board {
    std::unique_ptr<VerilatedContext> context = std::make_unique<VerilatedContext>();
    std::unique_ptr<Vcore> top;
#if VFY_FST
    std::unique_ptr<VerilatedFstC> fst;
#endif
    Timing timing;
    uint32_t divisor;
    int64_t cycle = 0;
    uint32_t fault = kNone;

    std::vector<Word> memory;
    std::vector<Bank> banks;
    std::vector<int64_t> answers;  // ring: what the chip drives in each cycle, -1 for nothing
    int64_t refreshed = -1000, refreshes = 0;
    bool ready = false;  // the mode register is set

    std::deque<uint8_t> to_board;
    std::vector<uint8_t> from_board;
    uint32_t rx_bits = 0, rx_left = 0, rx_wait = 0;
    uint32_t tx_bits = 0, tx_left = 0, tx_wait = 0;

    Board(const Timing& t, uint32_t d)
        : top(std::make_unique<Vcore>(context.get(), "board")),
          timing(t),
          divisor(d),
          memory(size_t(1) << (t.column_bits + t.bank_bits + t.row_bits)),
          banks(size_t(1) << t.bank_bits),
          answers(64, -1) {}

    void set_fault(uint32_t kind) {
        if (fault == kNone) fault = kind;
    }

    void early(int64_t since, uint32_t least) {
        if (cycle - since < int64_t(least)) set_fault(kTooEarly);
    }

    size_t word(uint32_t bank, uint32_t row, uint32_t column) const {
        return (size_t(row) << (timing.bank_bits + timing.column_bits)) |
               (size_t(bank) << timing.column_bits) | column;
    }

    // What the chip sees at its clock edge, in the middle of the controller's cycle.
    void chip() {
        Vcore& t = *top;
        int64_t& now = answers[cycle % answers.size()];
        t.sdram_d_i = now >= 0 ? Word(now) : Word(0xA5A5A5A5 ^ cycle);
        if (now >= 0 && t.sdram_d_oe) set_fault(kContention);
        now = -1;
        if (ready && cycle - refreshed > 0 &&
            cycle > (refreshes + 10) * int64_t(timing.refresh)) set_fault(kForgotten);
        if (t.sdram_cs_n || !t.sdram_cke) return;
        const uint32_t command = (t.sdram_ras_n << 2) | (t.sdram_cas_n << 1) | t.sdram_we_n;
        Bank& bank = banks[t.sdram_ba];
        if (command == 7) return;  // NOP
        early(refreshed, timing.trfc);
        switch (command) {
            case 0:  // MODE: the refreshes count from now on
                ready = true;
                refreshes = cycle / timing.refresh;
                break;
            case 1:  // REFRESH
                for (const Bank& b : banks) {
                    if (b.open) set_fault(kAlreadyOpen);
                    early(b.closed, timing.trp);
                }
                refreshed = cycle;
                ++refreshes;
                break;
            case 2:  // PRECHARGE, one bank or all
                for (size_t i = 0; i < banks.size(); ++i) {
                    Bank& b = banks[i];
                    if (!b.open || !((t.sdram_a >> 10 & 1) || i == t.sdram_ba)) continue;
                    early(b.opened, timing.tras);
                    early(b.written, timing.twr);
                    b.open = false;
                    b.closed = cycle;
                }
                break;
            case 3:  // ACTIVE
                if (bank.open) set_fault(kAlreadyOpen);
                early(bank.closed, timing.trp);
                bank.open = true;
                bank.row = t.sdram_a;
                bank.opened = cycle;
                break;
            case 4:    // WRITE
            case 5: {  // READ
                if (!bank.open) set_fault(kNotOpen);
                early(bank.opened, timing.trcd);
                const uint32_t column = t.sdram_a & ((1u << timing.column_bits) - 1);
                Word& content = memory[word(t.sdram_ba, bank.row, column)];
                if (command == 5) {
                    answers[(cycle + timing.delay) % answers.size()] = content;
                } else {
                    content = Word(t.sdram_d_o);
                    bank.written = cycle;
                    if (!t.sdram_d_oe) set_fault(kContention);
                }
                break;
            }
        }
    }

    void line() {
        Vcore& t = *top;
        if (rx_left != 0) {
            if (--rx_wait == 0) {
                rx_bits >>= 1;
                --rx_left;
                rx_wait = divisor;
            }
        } else if (!to_board.empty()) {
            rx_bits = 0x200u | (uint32_t(to_board.front()) << 1);
            to_board.pop_front();
            rx_left = 10;
            rx_wait = divisor;
        }
        t.rx = rx_left == 0 ? 1 : rx_bits & 1;
        if (tx_left == 0) {
            if (!t.tx) {
                tx_left = 9;
                tx_wait = divisor + divisor / 2;
                tx_bits = 0;
            }
        } else if (--tx_wait == 0) {
            tx_wait = divisor;
            tx_bits |= uint32_t(t.tx) << (9 - tx_left);
            if (--tx_left == 0 && t.tx) from_board.push_back(uint8_t(tx_bits));
        }
    }

    void tick() {
        Vcore& t = *top;
        t.clk = 1;
        t.eval();
#if VFY_FST
        if (fst) fst->dump(2 * cycle);
#endif
        chip();
        line();
        t.clk = 0;
        t.eval();
#if VFY_FST
        if (fst) fst->dump(2 * cycle + 1);
#endif
        ++cycle;
    }
};

}  // namespace

extern "C" {

Board* vfb_create(const uint32_t* timing, uint32_t divisor) {
    Timing t;
    std::memcpy(&t, timing, sizeof t);
    return new Board(t, divisor);
}

void vfb_destroy(Board* board) {
#if VFY_FST
    if (board->fst) board->fst->close();
#endif
    board->top->final();
    delete board;
}

int vfb_open_trace(Board* board, const char* path) {
#if VFY_FST
    board->context->traceEverOn(true);
    board->fst = std::make_unique<VerilatedFstC>();
    board->top->trace(board->fst.get(), 99);
    board->fst->open(path);
    return board->fst->isOpen();
#else
    (void)board;
    (void)path;
    return 0;
#endif
}

// The reset button: the controller starts over, with the chip's power-up time.
void vfb_reset(Board* board, uint32_t cycles) {
    board->ready = false;
    board->top->rst = 1;
    for (uint32_t i = 0; i < cycles; ++i) board->tick();
    board->top->rst = 0;
}

void vfb_run(Board* board, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; ++i) board->tick();
}

void vfb_put(Board* board, const uint8_t* bytes, uint64_t count) {
    board->to_board.insert(board->to_board.end(), bytes, bytes + count);
}

// Bytes that still wait for the line.
uint64_t vfb_waiting(const Board* board) { return board->to_board.size(); }

// At most `count` bytes that the board has sent; returns how many.
uint64_t vfb_get(Board* board, uint8_t* bytes, uint64_t count) {
    const uint64_t n = count < board->from_board.size() ? count : board->from_board.size();
    std::memcpy(bytes, board->from_board.data(), n);
    board->from_board.erase(board->from_board.begin(), board->from_board.begin() + long(n));
    return n;
}

// The memory, byte by byte.
uint8_t* vfb_memory(Board* board) { return reinterpret_cast<uint8_t*>(board->memory.data()); }

uint64_t vfb_cycle(const Board* board) { return uint64_t(board->cycle); }

uint32_t vfb_fault(const Board* board) { return board->fault; }

uint32_t vfb_leds(const Board* board) { return board->top->leds; }
}
