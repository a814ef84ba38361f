create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps
apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e \
    -config {apply_board_preset "1"} [get_bd_cells ps]
set_property -dict [list \
    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ @{clock} \
    CONFIG.PSU__USE__M_AXI_GP0 1 \
    CONFIG.PSU__USE__M_AXI_GP1 0 \
    CONFIG.PSU__USE__M_AXI_GP2 0 \
    @{port_settings} \
    CONFIG.PSU__USE__IRQ0 1 \
] [get_bd_cells ps]
set ps_clock ps/pl_clk0
set ps_clock_users {ps/maxihpm0_fpd_aclk @{port_clocks}}
set ps_reset ps/pl_resetn0
set ps_master ps/M_AXI_HPM0_FPD
set ps_slaves {@{port_slaves}}
set ps_interrupt ps/pl_ps_irq0
set ps_space ps/Data
set ps_memories {@{port_segments}}
