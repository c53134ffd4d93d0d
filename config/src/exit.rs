//! Exit codes of the two services, so that whoever starts them knows when starting them again is of no use: their
//! units name both in `RestartPreventExitStatus=`.

/// EX_USAGE of sysexits(3): a wrong command line.
pub const WRONG_COMMAND_LINE: u8 = 64;
/// EX_CONFIG of sysexits(3): the configuration has mistakes, or cannot be read.
pub const WRONG_CONFIGURATION: u8 = 78;
