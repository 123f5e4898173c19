//! What SECURITY.md says, to be held against what the tests do.

/// Returns how many acts the table of suites in SECURITY.md states for a test.
pub fn stated_acts(test: &str) -> usize {
    let document = include_str!("../../../SECURITY.md");
    let cited = format!("`{test}`");
    let stated = document.lines().find_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(2);
        let number = cells.next()?.parse().ok()?;
        (cells.next()? == cited).then_some(number)
    });
    stated.unwrap_or_else(|| panic!("SECURITY.md states no number of acts for {test}"))
}
