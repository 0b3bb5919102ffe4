// The reader of a 16-lane engine, fed by any source that keeps the rules of streams, with any tables and any sequencer.
// `state`, `cut` and `sealed` are connected to its own, which induction has to know.
module claims (
  input clk, input rst, input [64:0] beat, input offer, input take_row,
  input room, input idle, input overflow, input opened, input open_set
);
  wire ready, row, pending;
  wire [64:0] rows;
  wire [5:0] verdict;
  (* keep *) wire [3:0] state;
  (* keep *) wire cut, sealed;
  block_front dut (
    .clk(clk), .rst(rst), .i__payload(beat), .i__valid(offer), .i__ready(ready),
    .rows__payload(rows), .rows__valid(row), .rows__ready(take_row),
    .room(room), .idle(idle), .overflow(overflow), .block__opened(opened), .block__set(open_set),
    .block__pending(pending), .block__verdict(verdict)
  );
  localparam HEADER = 0, OPEN = 1, STOP = 2, JUDGE = 3, ROWS = 8, DRAIN = 9;
  wire last = beat[64], took = offer && ready;
  wire [3:0] error = verdict[3:0];
  wire bare = verdict[4];

  reg started = 0;
  reg fresh = 0;  // the next beat is a packet's first
  reg held = 0, held_row = 0, held_pending = 0, held_bare = 0;
  reg [64:0] before;

  always @(posedge clk) begin
    started <= 1;
    held <= !rst && offer && !ready;
    before <= beat;
    held_row <= !rst && row && !take_row;
    held_pending <= !rst && pending && !opened;
    held_bare <= bare;
    if (rst) fresh <= 1;
    else if (took) fresh <= last;
  end

  always @* begin
    if (!started) assume (rst);
    if (held) assume (offer && beat == before);
    assume (!opened || pending);
    if (started) begin
      // Starts afresh after every TLAST, whatever came before, and only then.
      assert (state <= DRAIN);
      if (state == HEADER) assert (fresh);
      else if (state == OPEN || state == JUDGE || state == STOP) assert (fresh == cut);
      else assert (!fresh && (state >= ROWS || !cut));
      // Rows are the beats as they came; a beat that is taken there goes to them.
      if (row) assert (rows == beat && offer && !fresh);
      if (state == ROWS) assert (took == (row && take_row));
      if (row && took) assert (take_row);
      if (held_row) assert (row && rows == before);
      // One block per packet, and nothing of the next one before it is opened.
      if (sealed) assert (state == HEADER || state == ROWS || state == DRAIN);
      if (sealed && state == HEADER) assert (!ready);
      if (pending) assert (sealed && idle);
      // Rows follow a block without an error so far; what has one is dropped.
      if (state == STOP || state == DRAIN) assert (bare && error != 0);
      else if (state != HEADER) assert (!bare);
      // Never hangs on rows or on what is dropped.
      if (offer && (state == DRAIN || (state == ROWS && take_row))) assert (ready);
      if (held_pending && sealed && idle) assert (pending && bare == held_bare);
    end
  end
endmodule
