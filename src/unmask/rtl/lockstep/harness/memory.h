// The memory behind the engine's AXI ports: bursts served in order, each beat a fixed number of cycles after its request; at the times that it
// has been told, of DRAM; or, with stalls, after a random time, and ready now and then.
#pragma once

#include <algorithm>
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

static inline void get_bytes(uint64_t port, uint8_t* to, int size) { memcpy(to, &port, size); }

template <std::size_t N>
static inline void get_bytes(const VlWide<N>& port, uint8_t* to, int size) {
    for (int word = 0; word < size / 4; ++word) memcpy(to + 4 * word, &port[word], 4);
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

// An AXI burst that an engine will ask for: its first byte, the cycle of its request on the bus, and the cycle of its last beat, or of its
// response; cycles from the first instruction's start.
struct Expected {
    uint64_t address;
    int64_t asked, done;
};

class Memory {
   public:
    // Delays: from a request to its first beat, from the last beat of a write to its response. `told`: times come by `expect`.
    Memory(int read_delay, int write_delay, uint64_t seed, bool told)
        : read_delay_(read_delay), write_delay_(write_delay), told_(told), random_(seed) {}

    void reset() {
        reads_.clear();
        addresses_.clear();
        responses_.clear();
        written_.clear();
        beats_.clear();
        for (auto& each : expected_) each.clear();
        valid_ = answering_ = false;
    }

    // The bytes stay the caller's.
    void load(uint8_t* content, uint64_t size, uint64_t error_low, uint64_t error_high, bool stalls) {
        content_ = content, size_ = size;
        error_low_ = error_low, error_high_ = error_high, stalls_ = stalls;
        constexpr int longest[] = {4, 40, 500};
        longest_ = longest[random_() % 3];
        reset();
    }

    // A burst of the read (0) or write (1) port, in the order in which they are asked for; cycle 0 of its times is `origin`.
    void expect(int port, Expected burst, int64_t origin) {
        burst.asked += origin, burst.done += origin;
        expected_[port].push_back(burst);
    }

    // The address of the last burst that was not asked for as expected.
    uint64_t stray() const { return stray_; }

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
            if (beat.address < size_) memcpy(data, content_ + beat.address, std::min<uint64_t>(BEAT, size_ - beat.address));
            set_bytes(top.PORT_RDATA, data, BEAT);
            top.PORT_RLAST = beat.last;
            top.PORT_RRESP = bad(beat.address, BEAT) ? 2 : 0;
        }
        if (!answering_ && !responses_.empty() && responses_.front().at <= now_ && ready()) answering_ = true;
        top.PORT_BVALID = answering_;
        if (answering_) top.PORT_BRESP = responses_.front().error ? 2 : 0;
    }

    // The engine (1 load, 2 store, as ports.h numbers them) that asked for a burst at another time or address than expected, or -1.
    template <typename Top>
    int see(Top& top, int64_t now) {
        int astray = -1;
        now_ = now;
        written_.clear();
        if (top.PORT_ARVALID && top.PORT_ARREADY) {
            int64_t at = now_ + (stalls_ ? 1 + random_() % longest_ : read_delay_);
            if (told_ && !stalls_) {
                const int64_t done = answer(0, top.PORT_ARADDR);
                if (done < 0) astray = ENGINE_LOAD;
                else at = std::max(now_ + 1, done - top.PORT_ARLEN);
            }
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
        if (top.PORT_AWVALID && top.PORT_AWREADY) {
            Burst burst{static_cast<uint64_t>(top.PORT_AWADDR), top.PORT_AWLEN + 1};
            if (told_ && !stalls_) {
                burst.done = answer(1, top.PORT_AWADDR);
                if (burst.done < 0) astray = ENGINE_STORE;
            }
            addresses_.push_back(burst);
        }
        if (top.PORT_WVALID && top.PORT_WREADY) {
            Data data;
            get_bytes(top.PORT_WDATA, data.bytes, BEAT);
            for (int byte = 0; byte < BEAT; ++byte) data.strobes[byte] = bits(top.PORT_WSTRB, byte, 1);
            data.at = now_;
            beats_.push_back(data);
        }
        // Data may come before its address.
        while (!addresses_.empty() && !beats_.empty()) {
            Burst& burst = addresses_.front();
            write(burst, beats_.front());
            const int64_t at = beats_.front().at;
            beats_.pop_front();
            if (--burst.beats == 0) {
                const int64_t due = burst.done >= 0 ? std::max(now_ + 1, burst.done) : at + write_delay_;
                responses_.push_back({stalls_ ? now_ + 1 + static_cast<int64_t>(random_() % longest_) : due, burst.error});
                addresses_.pop_front();
            }
        }
        ++now_;  // what is driven next is of the next cycle
        return astray;
    }

    // The bytes that were written in this cycle.
    template <typename F>
    void each_write(F use) const {
        for (const auto& [address, value] : written_) use(address, value);
    }

   private:
    struct Beat {
        uint64_t address;
        int64_t at;
        bool last;
    };
    struct Burst {
        uint64_t address;
        int beats;
        bool error = false;
        int64_t done = -1;
    };
    struct Data {
        uint8_t bytes[BEAT];
        bool strobes[BEAT];
        int64_t at;
    };
    struct Response {
        int64_t at;
        bool error;
    };

    bool ready() { return !stalls_ || random_() % 3 != 0; }
    bool bad(uint64_t address, uint64_t size) const { return address < error_high_ && error_low_ < address + size; }

    // When the burst that is asked for now is done, or -1 if another one, or none, was expected now.
    int64_t answer(int port, uint64_t address) {
        auto& expected = expected_[port];
        const bool here = !expected.empty() && expected.front().address / BEAT * BEAT == address;
        if (!here || expected.front().asked != now_) {
            stray_ = address;
            return -1;
        }
        const int64_t done = expected.front().done;
        expected.pop_front();
        return done;
    }

    void write(Burst& burst, const Data& data) {
        burst.error |= bad(burst.address, BEAT);
        for (int byte = 0; byte < BEAT; ++byte) {
            if (!data.strobes[byte]) continue;
            const uint64_t address = burst.address + byte;
            if (address < size_) content_[address] = data.bytes[byte];
            written_.emplace_back(address, data.bytes[byte]);
        }
        burst.address += BEAT;
    }

    int read_delay_, write_delay_, longest_ = 1;
    bool told_;
    std::mt19937_64 random_;
    uint8_t* content_ = nullptr;
    uint64_t size_ = 0, error_low_ = 0, error_high_ = 0, stray_ = 0;
    int64_t now_ = 0;
    std::deque<Expected> expected_[2];
    bool stalls_ = false, valid_ = false, answering_ = false;
    std::deque<Beat> reads_;
    std::deque<Burst> addresses_;
    std::deque<Data> beats_;
    std::deque<Response> responses_;
    std::vector<std::pair<uint64_t, uint8_t>> written_;
};
