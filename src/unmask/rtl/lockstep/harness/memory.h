// The memory behind the engine's AXI ports: bursts served in order, each beat a fixed number of cycles after its request, or, with stalls,
// after a random time, and ready now and then.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "ports.h"
#include "verilated.h"

static inline uint64_t mask_of(int width) { return width >= 64 ? ~0ull : (1ull << width) - 1; }

// Bits of a port, whatever type Verilator gave it.
static inline uint64_t bits(uint64_t value, int low, int width) { return (value >> low) & mask_of(width); }

template <std::size_t N>
static inline uint64_t bits(const VlWide<N>& value, int low, int width) {
    uint64_t found = value[low / 32] >> (low % 32);
    int have = 32 - low % 32;
    for (std::size_t word = low / 32 + 1; have < width && word < N; ++word, have += 32) found |= static_cast<uint64_t>(value[word]) << have;
    return found & mask_of(width);
}

static inline bool any(uint64_t value) { return value != 0; }

template <std::size_t N>
static inline bool any(const VlWide<N>& value) {
    for (std::size_t word = 0; word < N; ++word)
        if (value[word]) return true;
    return false;
}

template <typename T>
static inline void set_bytes(T& port, const uint8_t* from, int size) {
    uint64_t value = 0;
    memcpy(&value, from, size);
    port = static_cast<T>(value);
}

template <std::size_t N>
static inline void set_bytes(VlWide<N>& port, const uint8_t* from, int size) {
    for (int word = 0; word < size / 4; ++word) memcpy(&port[word], from + 4 * word, 4);
}

class Memory {
   public:
    Memory(int read_delay, int write_delay, uint64_t seed) : read_delay_(read_delay), write_delay_(write_delay), random_(seed) {}

    void reset() {
        reads_.clear();
        addresses_.clear();
        responses_.clear();
        written_.clear();
        beats_.clear();
        valid_ = answering_ = false;
    }

    void load(std::vector<uint8_t> content, uint64_t error_low, uint64_t error_high, bool stalls) {
        content_ = std::move(content);
        content_.resize((content_.size() + BEAT - 1) / BEAT * BEAT);
        error_low_ = error_low, error_high_ = error_high, stalls_ = stalls;
        constexpr int longest[] = {4, 40, 500};
        longest_ = longest[random_() % 3];
        reset();
    }

    template <typename Top>
    void drive(Top& top) {
        top.PORT_ARREADY = ready();
        top.PORT_AWREADY = ready();
        top.PORT_WREADY = ready();
        if (!valid_ && !reads_.empty() && reads_.front().at <= now_ && ready()) valid_ = true;
        top.PORT_RVALID = valid_;
        if (valid_) {
            const Beat& beat = reads_.front();
            uint8_t data[BEAT] = {};
            if (beat.address + BEAT <= content_.size()) memcpy(data, &content_[beat.address], BEAT);
            set_bytes(top.PORT_RDATA, data, BEAT);
            top.PORT_RLAST = beat.last;
            top.PORT_RRESP = bad(beat.address, BEAT) ? 2 : 0;
        }
        if (!answering_ && !responses_.empty() && responses_.front().at <= now_ && ready()) answering_ = true;
        top.PORT_BVALID = answering_;
        if (answering_) top.PORT_BRESP = responses_.front().error ? 2 : 0;
    }

    template <typename Top>
    void see(Top& top) {
        written_.clear();
        if (top.PORT_ARVALID && top.PORT_ARREADY) {
            const uint64_t at = now_ + (stalls_ ? 1 + random_() % longest_ : read_delay_);
            for (int beat = 0; beat <= top.PORT_ARLEN; ++beat)
                reads_.push_back({static_cast<uint64_t>(top.PORT_ARADDR) + beat * BEAT, at + beat, beat == top.PORT_ARLEN});
        }
        if (top.PORT_RVALID && top.PORT_RREADY) {
            reads_.pop_front();
            valid_ = false;
        }
        if (top.PORT_BVALID && top.PORT_BREADY) {
            responses_.pop_front();
            answering_ = false;
        }
        if (top.PORT_AWVALID && top.PORT_AWREADY) addresses_.push_back({static_cast<uint64_t>(top.PORT_AWADDR), top.PORT_AWLEN + 1});
        if (top.PORT_WVALID && top.PORT_WREADY) {
            Data data;
            for (int byte = 0; byte < BEAT; ++byte) {
                data.bytes[byte] = bits(top.PORT_WDATA, 8 * byte, 8);
                data.strobes[byte] = bits(top.PORT_WSTRB, byte, 1);
            }
            data.at = now_;
            beats_.push_back(data);
        }
        // Data may come before its address.
        while (!addresses_.empty() && !beats_.empty()) {
            Burst& burst = addresses_.front();
            write(burst, beats_.front());
            const uint64_t at = beats_.front().at;
            beats_.pop_front();
            if (--burst.beats == 0) {
                responses_.push_back({stalls_ ? now_ + 1 + random_() % longest_ : at + write_delay_, burst.error});
                addresses_.pop_front();
            }
        }
        ++now_;
    }

    // The bytes that were written in this cycle.
    template <typename F>
    void each_write(F use) const {
        for (const auto& [address, value] : written_) use(address, value);
    }

   private:
    struct Beat {
        uint64_t address, at;
        bool last;
    };
    struct Burst {
        uint64_t address;
        int beats;
        bool error = false;
    };
    struct Data {
        uint8_t bytes[BEAT];
        bool strobes[BEAT];
        uint64_t at;
    };
    struct Response {
        uint64_t at;
        bool error;
    };

    bool ready() { return !stalls_ || random_() % 3 != 0; }
    bool bad(uint64_t address, uint64_t size) const { return address < error_high_ && error_low_ < address + size; }

    void write(Burst& burst, const Data& data) {
        burst.error |= bad(burst.address, BEAT);
        for (int byte = 0; byte < BEAT; ++byte) {
            if (!data.strobes[byte]) continue;
            const uint64_t address = burst.address + byte;
            if (address < content_.size()) content_[address] = data.bytes[byte];
            written_.emplace_back(address, data.bytes[byte]);
        }
        burst.address += BEAT;
    }

    int read_delay_, write_delay_, longest_ = 1;
    std::mt19937_64 random_;
    std::vector<uint8_t> content_;
    uint64_t error_low_ = 0, error_high_ = 0, now_ = 0;
    bool stalls_ = false, valid_ = false, answering_ = false;
    std::deque<Beat> reads_;
    std::deque<Burst> addresses_;
    std::deque<Data> beats_;
    std::deque<Response> responses_;
    std::vector<std::pair<uint64_t, uint8_t>> written_;
};
