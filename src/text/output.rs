//! What commands print to standard output.

use std::io::Write;

use crate::text::escape;

/// Prints lines to standard output, without what a terminal would obey. A reader that went away is no failure.
pub fn println(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", escape::lines(text));
}

/// Prints as [`println()`] does, with colours that are left out if standard output is no terminal or
/// NO_COLOR is set.
pub fn println_in_colour(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}
