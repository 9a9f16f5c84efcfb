//! The example of the bot, run as a test.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../examples/echo.rs"]
#[allow(dead_code, reason = "its main function is run by the test")]
mod example;

#[test]
fn the_bot_echoes() {
    example::main().unwrap();
}
