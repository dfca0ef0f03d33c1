"""The note that goes with emitted Verilog."""

NOTE = """# {top}: integration

The sampling engine of machine `{machine}`, VLEN {vlen}. Module `{top}` in `{top}.v`; `machine.json` is the configuration it was built from.

## Clock and reset

One clock, `clk`, rising edge. `rst` is synchronous and active high; hold it for one cycle. Memories are not reset: a program writes
before it
reads. All inputs are sampled, and all outputs change, at the rising edge; `read__rready`, `write__bready` and `host_read_data` are the only
outputs with logic behind their registers.

## Ports

{ports}
## Memory interface

`read__*` and `write__*` are AXI4 masters with one ID and beats of {beat} bytes: INCR bursts of full-width, aligned beats that never cross
4 KiB (AxSIZE and AxBURST are constants for the integrator to tie), responses in order, at most {bursts} bursts under way each. `xVALID`
waits
for `xREADY` with its payload unchanged. RRESP and BRESP with bit 1 set are errors. `memory_bytes` is the size of the memory: an address
at or
beyond it is a fault of the instruction, and no request is made. Any latency and any stall is allowed; they change time, never values.

## Host interface

32 bits, no wait states. `host_write` writes `host_write_data` to the byte address `host_address` (a multiple of 4) at the end of the cycle;
`host_read_data` is the word at the address of the cycle before. While `busy` only STATUS is defined, and writes are ignored.

| address | register | |
|---|---|---|
{registers}| {program} | instruction memory | 16 bytes an instruction, {words} of them, lowest word first; writing the fourth word stores
the instruction |
| {integers} | integer SRAM | a word each, read and write: parameters of a program, and its results |

## Starting a program

1. Write the instructions (`unmask compile`, `unmask asm`) to the instruction memory; once.
2. Write parameters, if the program has any, to the integer SRAM.
3. Write ENTRY, then 1 to CONTROL. `busy` is high from the next cycle, in which the first instruction is executed, until every engine is
idle.
4. STATUS then has bit 1 set, or a fault in bits 15:8; FAULT_PC names its instruction, and CYCLES has the run's length.

A start clears registers, semaphores, queues and loops, and what a fault left. SRAMs keep their content.

## Faults

The first fault stops the engine: nothing more starts, bursts under way are completed and dropped, and `busy` falls. An instruction that
fails
may have written part of its result. Codes:

| code | name |
|---|---|
{faults}
"""
