//! What SECURITY.md says, to be held against what the tests do.

/// Returns how many acts the table of suites in SECURITY.md states for a test.
pub fn stated_acts(test: &str) -> usize {
    let document = include_str!("../../../SECURITY.md");
    let cited = format!("`{test}`");
    let row = document.lines().find(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        cells.get(3).is_some_and(|cell| *cell == cited)
    });
    let row = row.unwrap_or_else(|| panic!("SECURITY.md states no number of acts for {test}"));
    row.split('|').nth(2).unwrap().trim().parse().unwrap()
}
