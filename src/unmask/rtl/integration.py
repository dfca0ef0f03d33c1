"""The note that goes with emitted Verilog."""

NOTE = """# {top}: integration

The {what} of machine `{machine}`, VLEN {vlen}. Module `{top}` in `{top}.v`; `machine.json` is the configuration it was built from.

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

{matrix}## Starting a program

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

MATRIX = """## Matrix port

A matrix unit on the same clock and reset is driven by `matrix_*`. Programs that project to the vocabulary and sample what comes out,
without logits in memory, enter this way.

- `matrix_instruction__valid`, `__ready`, `__payload`: an M_MM that has taken its semaphores; it starts in the cycle in which both are high.
  `ready` says that the unit takes one like the payload, and may come before the one before has retired; a SYNC, which is not offered, waits
  for it too. The payload is, from bit 0: {payload}. Operands lie in the
  word as docs/isa.md has them; the three register values are `dst` and `a`, element addresses in the vector SRAM, and `b`, the right
  operand's first block.
- `matrix_retire`: high in the last cycle before the end of the oldest instruction under way. Its results are in the vector SRAM from the
  next cycle on, and its signals are given.
- `matrix_fault`: a code of the table below, of the oldest instruction under way, until `matrix_stop`; 0 if nothing is wrong with it.
- `matrix_stop`: forget what is under way and be ready from the next cycle on; high at a start, too.
- `matrix_a__enable`, `__address`, `__data`: reads {mlen} BF16 elements of the vector SRAM from a multiple of {granule}, counted in
  `address`; the data come in the next cycle, the first element in the low bits.
- `matrix_dst__address`, `__mask`, `__data`: writes {width} of them likewise, those whose bit of the mask is set, at the end of the cycle.
- `matrix_load__*`: what L_MAT brings: from block `address` on, {lanes} MX blocks of 32 elements of {bits} bits in `data`, a bit of `mask`
  each, and their scales in `scales`, a bit of `scale_mask` each.

A unit that takes as long as `unmask.machine.costs.matrix_cycles` says keeps the cycle reading exact; any other time changes no value.

"""
