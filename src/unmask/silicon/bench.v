// Runs programs on a sampling engine: a host that writes and starts them, a memory that serves bursts in order, each beat a fixed number
// of cycles after its request, and a recorder.
`timescale 1ns/1ps
module bench;
@WIRES@
  @TOP@ dut (@CONNECTIONS@);

  reg [31:0] words [0:@WORDS@];
  reg [@BITS@:0] memory [0:@BEATS@];
  reg [@MEMORY_BITS@-1:0] read_address [0:@UNDER_WAY@-1];
  reg read_last [0:@UNDER_WAY@-1];
  integer read_at [0:@UNDER_WAY@-1];
  integer read_head, read_tail, answer_at [0:@UNDER_WAY@-1], answer_head, answer_tail;
  reg [@MEMORY_BITS@-1:0] burst_address [0:@UNDER_WAY@-1];
  integer burst_beats [0:@UNDER_WAY@-1], burst_head, burst_tail;
  reg [@BITS@:0] beat_data [0:@UNDER_WAY@-1];
  reg [@BYTES@-1:0] beat_strobe [0:@UNDER_WAY@-1];
  integer beat_at [0:@UNDER_WAY@-1], beat_head, beat_tail;
  reg valid, answering;
  integer now, index, place, ports, report, begun, status, fault;

  // One cycle: inputs settle, everything of this cycle is seen, then the clock rises.
  task tick;
    begin
      if (!valid && read_head != read_tail && read_at[read_head % @UNDER_WAY@] <= now) valid = 1;
      if (valid) begin
        read__rdata = memory[read_address[read_head % @UNDER_WAY@] / @BYTES@];
        read__rlast = read_last[read_head % @UNDER_WAY@];
      end
      if (!answering && answer_head != answer_tail && answer_at[answer_head % @UNDER_WAY@] <= now) answering = 1;
      read__rvalid = valid;
      write__bvalid = answering;
      clk = 0;
      #5;
      if (read__arvalid)
        for (index = 0; index <= read__arlen; index = index + 1) begin
          read_address[read_tail % @UNDER_WAY@] = read__araddr + index * @BYTES@;
          read_at[read_tail % @UNDER_WAY@] = now + @READ_DELAY@ + index;
          read_last[read_tail % @UNDER_WAY@] = index == read__arlen;
          read_tail = read_tail + 1;
        end
      if (valid && read__rready) begin
        read_head = read_head + 1;
        valid = 0;
      end
      if (answering && write__bready) begin
        answer_head = answer_head + 1;
        answering = 0;
      end
      if (write__awvalid) begin
        burst_address[burst_tail % @UNDER_WAY@] = write__awaddr;
        burst_beats[burst_tail % @UNDER_WAY@] = write__awlen + 1;
        burst_tail = burst_tail + 1;
      end
      if (write__wvalid) begin
        beat_data[beat_tail % @UNDER_WAY@] = write__wdata;
        beat_strobe[beat_tail % @UNDER_WAY@] = write__wstrb;
        beat_at[beat_tail % @UNDER_WAY@] = now;
        beat_tail = beat_tail + 1;
      end
      // Data may come before its address.
      while (burst_head != burst_tail && beat_head != beat_tail) begin
        place = burst_address[burst_head % @UNDER_WAY@] / @BYTES@;
        for (index = 0; index < @BYTES@; index = index + 1)
          if (beat_strobe[beat_head % @UNDER_WAY@][index]) memory[place][8 * index +: 8] = beat_data[beat_head % @UNDER_WAY@][8 * index +: 8];
        burst_address[burst_head % @UNDER_WAY@] = burst_address[burst_head % @UNDER_WAY@] + @BYTES@;
        burst_beats[burst_head % @UNDER_WAY@] = burst_beats[burst_head % @UNDER_WAY@] - 1;
        if (burst_beats[burst_head % @UNDER_WAY@] == 0) begin
          answer_at[answer_tail % @UNDER_WAY@] = beat_at[beat_head % @UNDER_WAY@] + @WRITE_DELAY@;
          answer_tail = answer_tail + 1;
          burst_head = burst_head + 1;
        end
        beat_head = beat_head + 1;
      end
      $fwrite(ports, "%h %h\n", {@GIVEN@}, {@SEEN@});
      clk = 1;
      #5;
      now = now + 1;
    end
  endtask

  task write_host(input [@ADDRESS_BITS@-1:0] address, input [@BUS_BITS@-1:0] value);
    begin
      host_address = address;
      host_write_data = value;
      host_write = 1;
      tick;
      host_write = 0;
    end
  endtask

  task read_host(input [@ADDRESS_BITS@-1:0] address);
    begin
      host_address = address;
      tick;
      tick;
    end
  endtask

  task run(input integer count, input integer bytes, input integer most, input [8*40-1:0] program, input [8*40-1:0] before, input [8*40-1:0] after);
    integer word;
    begin
      $readmemh(program, words, 0, count - 1);
      $readmemh(before, memory, 0, (bytes + @BYTES@ - 1) / @BYTES@ - 1);
      memory_bytes = bytes;
      for (word = 0; word < count; word = word + 1) write_host(@PROGRAM@ + 4 * word, words[word]);
      write_host(@ENTRY@, 0);
      write_host(@CONTROL@, 1);
      begun = now;
      host_address = @STATUS@;
      tick;
      tick;
      while (host_read_data[0] && now - begun < most) tick;
      status = host_read_data;
      read_host(@FAULT_PC@);
      fault = host_read_data;
      read_host(@CYCLES@);
      $fwrite(report, "%0d %0d %0d\n", status, fault, host_read_data);
      $writememh(after, memory, 0, (bytes + @BYTES@ - 1) / @BYTES@ - 1);
    end
  endtask

  initial begin
@STARTS@
    read__arready = 1;
    write__awready = 1;
    write__wready = 1;
    {read_head, read_tail, answer_head, answer_tail, burst_head, burst_tail, beat_head, beat_tail, now} = 0;
    {valid, answering} = 0;
    ports = $fopen("@PORTS@", "w");
    report = $fopen("@REPORT@", "w");
    rst = 1;
    tick;
    tick;
    rst = 0;
    tick;
@RUNS@
    $finish;
  end
endmodule
