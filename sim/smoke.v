// Smoke test of the core for any simulator: it answers, and refuses a job of size zero. Whole jobs: docs/simulation.md.
module smoke;
  reg aclk = 0, aresetn = 0;
  reg [11:0] address = 0;
  reg [31:0] wdata = 0;
  reg awvalid = 0, wvalid = 0, arvalid = 0;
  wire awready, wready, bvalid, arready, rvalid, irq;
  wire [1:0] bresp, rresp;
  wire [31:0] rdata;
  reg [31:0] got = 0;

  always #1 aclk = ~aclk;

  core dut (
    .aclk(aclk), .aresetn(aresetn), .irq(irq),
    .s_axis_weights_tdata(0), .s_axis_weights_tlast(1'b0), .s_axis_weights_tvalid(1'b0), .s_axis_weights_tready(),
    .s_axis_activations_tdata(0), .s_axis_activations_tlast(1'b0), .s_axis_activations_tvalid(1'b0),
    .s_axis_activations_tready(),
    .m_axis_results_tdata(), .m_axis_results_tkeep(), .m_axis_results_tlast(), .m_axis_results_tuser(),
    .m_axis_results_tvalid(), .m_axis_results_tready(1'b1),
    .s_axil_awaddr(address), .s_axil_awprot(3'b0), .s_axil_awvalid(awvalid), .s_axil_awready(awready),
    .s_axil_wdata(wdata), .s_axil_wstrb(4'hF), .s_axil_wvalid(wvalid), .s_axil_wready(wready),
    .s_axil_bresp(bresp), .s_axil_bvalid(bvalid), .s_axil_bready(1'b1),
    .s_axil_araddr(address), .s_axil_arprot(3'b0), .s_axil_arvalid(arvalid), .s_axil_arready(arready),
    .s_axil_rdata(rdata), .s_axil_rresp(rresp), .s_axil_rvalid(rvalid), .s_axil_rready(1'b1)
  );

  // Inputs change at falling edges, so that no simulator sees them change with the clock.
  always @(posedge aclk) begin
    if (awvalid && awready) awvalid <= #1 0;
    if (wvalid && wready) wvalid <= #1 0;
    if (arvalid && arready) arvalid <= #1 0;
  end

  task write(input [11:0] where, input [31:0] value);
    begin
      @(negedge aclk) begin address = where; wdata = value; awvalid = 1; wvalid = 1; end
      @(posedge aclk); while (!bvalid) @(posedge aclk);
      if (bresp !== 2'b00) fail("a write was answered with an error");
      @(negedge aclk);
    end
  endtask

  task read(input [11:0] where);
    begin
      @(negedge aclk) begin address = where; arvalid = 1; end
      @(posedge aclk); while (!rvalid) @(posedge aclk);
      got = rdata;
      @(negedge aclk);
    end
  endtask

  task fail(input [8*48-1:0] why);
    begin
      $display("FAIL: %0s", why);
      $fatal(1);
    end
  endtask

  initial begin
    repeat (3) @(negedge aclk);
    aresetn = 1;
    read(12'h000); if (got !== 32'h424D5343) fail("ID");
    read(12'h004); if (got[31:16] !== 16'd1) fail("VERSION");
    write(12'h034, 2);  // IRQ_ENABLE.error
    write(12'h020, 1);  // CONTROL.start, of a job of size zero
    read(12'h024); if (got[2:0] !== 3'b100) fail("STATUS");
    read(12'h028); if (got[7:0] !== 8'd3) fail("ERROR");
    if (irq !== 1'b1) fail("no interrupt");
    $display("PASS");
    $finish;
  end

  initial begin
    #10000 fail("nothing answers");
  end
endmodule
