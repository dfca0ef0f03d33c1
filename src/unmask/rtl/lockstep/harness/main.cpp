// Runs a batch of programs on a Verilated engine and logs what every instruction does.
//
//     harness BATCH LOG
//
// BATCH: a BatchHeader, and per program a ProgramHeader, its instruction words and the content of the memory. LOG: Records.
// `ports.h`, written beside this file for each engine, names the ports and lists the write taps; see unmask.rtl.lockstep.build.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "memory.h"
#include "ports.h"
#include "verilated.h"

struct BatchHeader {
    uint32_t magic, programs;
    int32_t read_delay, write_delay;  // cycles from a request to its first beat, from the last beat of a write to its response
    uint64_t seed;                    // of random latencies and stalls
};

struct ProgramHeader {
    uint32_t words, flags;
    uint64_t memory_bytes, timeout;
    uint64_t error_low, error_high;  // beats that overlap [low, high) have an error response
};

enum Flags : uint32_t { FRESH = 1, STALLS = 2 };

struct Record {
    uint32_t program;
    uint16_t kind, engine;
    int64_t cycle;  // from the first instruction's start
    uint64_t address, value;
};

enum Kind : uint16_t { START = 16, RETIRE = 17, STATUS = 20 };  // below 16: a write, by memory
enum Status : uint64_t { DONE = 1, FAULT = 2, TIMEOUT = 3 };

constexpr uint32_t MAGIC = 0x4c4b5354;

[[noreturn]] static void fail(const char* what) {
    fprintf(stderr, "harness: %s\n", what);
    exit(3);
}

static void read_exactly(FILE* file, void* to, size_t size) {
    if (size != 0 && fread(to, 1, size, file) != size) fail("the batch is truncated");
}

class Bench {
   public:
    Bench(FILE* log, const BatchHeader& batch) : log_(log), batch_(batch), memory_(batch.read_delay, batch.write_delay, batch.seed) {
        renew();
    }

    void run(uint32_t number, const ProgramHeader& header, const std::vector<uint32_t>& words, std::vector<uint8_t> content) {
        if (header.flags & FRESH) renew();
        program_ = number;
        top_->PORT_MEMORY_BYTES = header.memory_bytes;
        recording_ = false;
        memory_.load(std::move(content), header.error_low, header.error_high, (header.flags & STALLS) != 0);
        for (size_t index = 0; index < words.size(); ++index) write_host(PROGRAM_BASE + 4 * index, words[index]);
        write_host(REGISTER_ENTRY, 0);
        // The first instruction is executed in the cycle after the start was written.
        first_ = cycle_ + 1;
        recording_ = true;
        write_host(REGISTER_CONTROL, 1);
        const int64_t begun = cycle_;
        uint64_t status = 0;
        top_->PORT_HOST_ADDRESS = REGISTER_STATUS;
        tick();
        do {
            tick();
            status = top_->PORT_HOST_READ_DATA;
        } while ((status & 1) && static_cast<uint64_t>(cycle_ - begun) < header.timeout);
        recording_ = false;
        const bool late = status & 1;
        const uint64_t code = (status >> 8) & 0xff;
        const uint64_t pc = read_host(REGISTER_FAULT_PC), cycles = read_host(REGISTER_CYCLES);
        const uint64_t outcome = late ? TIMEOUT : code ? FAULT : (status & 2) ? DONE : TIMEOUT;
        put(STATUS, static_cast<uint16_t>(outcome), cycles, code, pc);
        if (late) renew();
    }

   private:
    void renew() {
        if (top_) top_->final();
        top_.reset();
        context_ = std::make_unique<VerilatedContext>();
        top_ = std::make_unique<Vtop>(context_.get());
        memory_.reset();
        top_->PORT_RESET = 1;
        tick();
        tick();
        top_->PORT_RESET = 0;
        tick();
    }

    void put(uint16_t kind, uint16_t engine, int64_t cycle, uint64_t address, uint64_t value) {
        const Record record{program_, kind, engine, cycle, address, value};
        fwrite(&record, sizeof record, 1, log_);
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
        memory_.see(*top_);
        if (recording_) observe();
        top_->PORT_CLOCK = 1;
        top_->eval();
        ++cycle_;
    }

    void observe() {
#define START_TAP(ENGINE, STROBE, PC) \
    if (top_->STROBE) started(ENGINE, top_->PC);
#define RETIRE_TAP(ENGINE, STROBE, PC) \
    if (top_->STROBE) put(RETIRE, ENGINE, cycle_ - first_, top_->PC, 0);
        START_TAPS
        RETIRE_TAPS
#define WRITE_TAP(ENGINE, SPACE, UNIT, LANES, WIDTH, DELAY, ADDRESS, MASK, DATA)                                            \
    if (any(top_->MASK)) {                                                                                                  \
        const uint64_t base = static_cast<uint64_t>(top_->ADDRESS) * (UNIT);                                                \
        for (int lane = 0; lane < (LANES); ++lane)                                                                          \
            if (bits(top_->MASK, lane, 1))                                                                                  \
                put(SPACE, ENGINE, cycle_ - (DELAY) - first_, base + lane, bits(top_->DATA, lane * (WIDTH), WIDTH));        \
    }
        WRITE_TAPS
        memory_.each_write([this](uint64_t address, uint8_t value) { put(SPACE_HBM, ENGINE_STORE, cycle_ - first_, address, value); });
    }

    void started(uint16_t engine, uint64_t pc) {
        put(START, engine, cycle_ - first_, pc, 0);
    }

    FILE* log_;
    BatchHeader batch_;
    Memory memory_;
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
    uint32_t program_ = 0;
    bool recording_ = false;
    int64_t cycle_ = 0, first_ = 0;
};

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: harness BATCH LOG");
    FILE* batch = fopen(argv[1], "rb");
    FILE* log = fopen(argv[2], "wb");
    if (!batch || !log) fail("cannot open a file");
    std::vector<char> buffer(1 << 20);
    setvbuf(log, buffer.data(), _IOFBF, buffer.size());
    BatchHeader header;
    read_exactly(batch, &header, sizeof header);
    if (header.magic != MAGIC) fail("not a batch");
    Bench bench(log, header);
    for (uint32_t number = 0; number < header.programs; ++number) {
        ProgramHeader program;
        read_exactly(batch, &program, sizeof program);
        std::vector<uint32_t> words(4 * program.words);
        read_exactly(batch, words.data(), 4 * words.size());
        std::vector<uint8_t> content(program.memory_bytes);
        read_exactly(batch, content.data(), content.size());
        bench.run(number, program, words, std::move(content));
    }
    if (fclose(log) != 0) fail("cannot write the log");
    return 0;
}
