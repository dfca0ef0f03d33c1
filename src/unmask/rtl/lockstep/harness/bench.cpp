// A Verilated engine as a library: the host's side of its registers, the memory behind its AXI ports, and a log of what every instruction does.
// `ports.h`, written beside this file for each engine, names the ports and lists the taps; see unmask.rtl.lockstep.build. The functions at the
// end are what unmask.rtl.lockstep.bench calls.

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "memory.h"
#include "ports.h"
#include "verilated.h"

struct Record {
    uint32_t program;
    uint16_t kind, engine;
    int64_t cycle;  // from the first instruction's start
    uint64_t address, value;
};

enum Kind : uint16_t { START = 16, RETIRE = 17, STRAY = 18, STATUS = 20 };  // below 16: a write, by memory
enum Status : uint64_t { DONE = 1, FAULT = 2, TIMEOUT = 3 };

// An engine with a clock of its own: its instructions under way, and cycles that it is still clocked after the last.
struct Gate {
    int under_way = 0, left = 0;
};

// After the end of an instruction, counters of what was under way may still have to move: a few cycles, and as many again.
constexpr int DRAIN = 16;

// Of a DMA instruction that starts: its engine, its number, the cycle, its addresses of elements and scales, and the integer SRAM. The
// memory answers with the AXI bursts that it will be asked for; their number, or -1 if it cannot. One that is not `told` has times of its own
// and needs no answer.
typedef int64_t (*Ask)(uint64_t engine, uint64_t pc, int64_t cycle, uint64_t memory, uint64_t scales, const int32_t* integers,
                       uint64_t words, const Expected** bursts);

class Bench {
   public:
    Bench(int read_delay, int write_delay, uint64_t seed, Ask ask, bool told) : ask_(ask), memory_(read_delay, write_delay, seed, told) {
        renew();
    }

    ~Bench() {
        top_->final();
        fflush(nullptr);  // of files that the Verilog writes
    }

    void renew() {
        if (top_) top_->final();
        top_.reset();
        context_ = std::make_unique<VerilatedContext>();
        top_ = std::make_unique<Vtop>(context_.get());
        memory_.reset();
        integers_.assign(INTEGER_WORDS, 0);
        recording_ = asking_ = running_ = false;
        top_->PORT_RESET = 1;
        tick();
        tick();
        top_->PORT_RESET = 0;
        tick();
    }

    void content(uint8_t* bytes, uint64_t size, uint64_t error_low, uint64_t error_high, bool stalls) {
        top_->PORT_MEMORY_BYTES = size;
        memory_.load(bytes, size, error_low, error_high, stalls);
    }

    void words(const uint32_t* words, uint64_t count) {
        recording_ = asking_ = running_ = false;
        for (uint64_t index = 0; index < count; ++index) write_host(PROGRAM_BASE + 4 * index, words[index]);
    }

    void start(uint32_t program, bool record) {
        program_ = program;
        recording_ = asking_ = running_ = false;
        write_host(REGISTER_ENTRY, 0);
        // The first instruction is executed in the cycle after the start was written.
        first_ = cycle_ + 1;
        recording_ = record;
        asking_ = ask_ != nullptr;
        failed_ = false;
        for (auto& gate : gates_) gate = {};
        write_host(REGISTER_CONTROL, 1);
        top_->PORT_HOST_ADDRESS = REGISTER_STATUS;
        tick();
        begun_ = cycle_ - 1;
        running_ = true;
    }

    // Whether the engine is still busy, after at most so many cycles; -1 if the memory could not answer, or was asked for another burst than
    // it was told of while nothing was recorded.
    int run(uint64_t cycles) {
        do {
            tick();
            if (failed_) return -1;
            status_ = top_->PORT_HOST_READ_DATA;
        } while ((status_ & 1) && --cycles != 0);
        return status_ & 1;
    }

    // How the run ended; TIMEOUT if the engine is still busy.
    void end(uint64_t* result) {
        recording_ = running_ = false;
        result[1] = (status_ >> 8) & 0xff;
        result[2] = read_host(REGISTER_FAULT_PC);
        result[3] = read_host(REGISTER_CYCLES);
        result[0] = status_ & 1 ? TIMEOUT : result[1] ? FAULT : (status_ & 2) ? DONE : TIMEOUT;
        if (status_ & 1) renew();
        asking_ = false;
    }

    int64_t elapsed() const { return cycle_ - begun_; }

    std::vector<Record>& log() { return log_; }

   private:
    void put(uint16_t kind, uint16_t engine, int64_t cycle, uint64_t address, uint64_t value) {
        log_.push_back({program_, kind, engine, cycle - first_, address, value});
    }

    void write_host(uint32_t address, uint32_t value) {
        top_->PORT_HOST_ADDRESS = address;
        top_->PORT_HOST_WRITE_DATA = value;
        top_->PORT_HOST_WRITE = 1;
        tick();
        top_->PORT_HOST_WRITE = 0;
    }

    uint32_t read_host(uint32_t address) {
        top_->PORT_HOST_ADDRESS = address;
        tick();
        tick();
        return top_->PORT_HOST_READ_DATA;
    }

    // One cycle: inputs settle, everything of this cycle is seen, then the clock rises.
    void tick() {
        memory_.drive(*top_);
        top_->PORT_CLOCK = 0;
        top_->eval();
        if (asking_) ask();
        if (ask_) mirror();
        const int stray = memory_.see(*top_, cycle_);
        if (recording_) {
            if (stray >= 0) put(STRAY, stray, cycle_, memory_.stray(), 0);
            observe();
        } else if (stray >= 0) {
            failed_ = true;
        }
        top_->PORT_CLOCK = 1;
#define GATE(NUMBER, CLOCK, START, RETIRE) top_->CLOCK = awake(gates_[NUMBER], top_->START, top_->RETIRE);
        GATES
        top_->eval();
#undef GATE
#define GATE(NUMBER, CLOCK, START, RETIRE) top_->CLOCK = 0;
        GATES
        ++cycle_;
    }

    // Whether an engine needs this cycle's edge: outside of a run always, else from the start of an instruction until it has come to rest.
    bool awake(Gate& gate, bool start, bool retire) {
        gate.under_way += start - retire;
        if (!running_ || gate.under_way != 0 || start || retire) {
            gate.left = DRAIN;
            return true;
        }
        return gate.left != 0 && gate.left-- != 0;
    }

    // Tells the memory of DMA instructions that start in this cycle: the load first, as it is served first.
    void ask() {
#define START_DMA(ENGINE, WRITE, STROBE, PC, MEMORY, SCALES)                                                                    \
    if (top_->STROBE) {                                                                                                        \
        const Expected* bursts = nullptr;                                                                                      \
        const int64_t count = ask_(ENGINE, top_->PC, cycle_ - first_, top_->MEMORY, top_->SCALES, integers_.data(),            \
                                   integers_.size(), &bursts);                                                                 \
        if (count < 0) failed_ = true;                                                                                         \
        for (int64_t index = 0; index < count; ++index) memory_.expect(WRITE, bursts[index], first_);       \
    }
        START_DMAS
    }

    // Keeps what is written to the integer SRAM.
    void mirror() {
#define INTEGER_TAP(LANES, ADDRESS, MASK, DATA)                                                                              \
    if (any(top_->MASK))                                                                                                     \
        for (int lane = 0; lane < (LANES); ++lane) {                                                                         \
            const uint64_t word = static_cast<uint64_t>(top_->ADDRESS) + lane;                                               \
            if (bits(top_->MASK, lane, 1) && word < integers_.size())                                                        \
                integers_[word] = static_cast<int32_t>(bits(top_->DATA, 32 * lane, 32));                                     \
        }
        INTEGER_TAPS
    }

    void observe() {
#define START_TAP(ENGINE, STROBE, PC) \
    if (top_->STROBE) put(START, ENGINE, cycle_, top_->PC, 0);
#define RETIRE_TAP(ENGINE, STROBE, PC) \
    if (top_->STROBE) put(RETIRE, ENGINE, cycle_, top_->PC, 0);
        START_TAPS
        RETIRE_TAPS
#define WRITE_TAP(ENGINE, SPACE, UNIT, LANES, WIDTH, DELAY, ADDRESS, MASK, DATA)                                        \
    if (any(top_->MASK)) {                                                                                              \
        const uint64_t base = static_cast<uint64_t>(top_->ADDRESS) * (UNIT);                                            \
        for (int lane = 0; lane < (LANES); ++lane)                                                                      \
            if (bits(top_->MASK, lane, 1))                                                                              \
                put(SPACE, ENGINE, cycle_ - (DELAY), base + lane, bits(top_->DATA, lane * (WIDTH), WIDTH));             \
    }
        WRITE_TAPS
        memory_.each_write([this](uint64_t address, uint8_t value) { put(SPACE_HBM, ENGINE_STORE, cycle_, address, value); });
    }

    Ask ask_;
    Memory memory_;
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
    std::vector<Record> log_;
    std::vector<int32_t> integers_;
    uint32_t program_ = 0;
    bool recording_ = false, asking_ = false, failed_ = false, running_ = false;
    std::array<Gate, GATE_COUNT> gates_{};
    uint64_t status_ = 0;
    int64_t cycle_ = 0, first_ = 0, begun_ = 0;
};

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Bench* bench_open(int read_delay, int write_delay, uint64_t seed, Ask ask, int told) {
    return new Bench(read_delay, write_delay, seed, ask, told != 0);
}
EXPORT void bench_close(Bench* bench) { delete bench; }
EXPORT void bench_renew(Bench* bench) { bench->renew(); }
EXPORT void bench_words(Bench* bench, const uint32_t* words, uint64_t count) { bench->words(words, count); }
EXPORT void bench_content(Bench* bench, uint8_t* bytes, uint64_t size, uint64_t error_low, uint64_t error_high, int stalls) {
    bench->content(bytes, size, error_low, error_high, stalls != 0);
}
EXPORT void bench_start(Bench* bench, uint32_t program, int record) { bench->start(program, record != 0); }
EXPORT int bench_run(Bench* bench, uint64_t cycles) { return bench->run(cycles); }
EXPORT int64_t bench_elapsed(const Bench* bench) { return bench->elapsed(); }
EXPORT void bench_end(Bench* bench, uint64_t* result) { bench->end(result); }
EXPORT uint64_t bench_log(Bench* bench, const Record** records) {
    *records = bench->log().data();
    return bench->log().size();
}
EXPORT void bench_forget(Bench* bench) { bench->log().clear(); }
