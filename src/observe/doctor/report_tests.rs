//! The checklist as it is printed.

use super::*;
use crate::text::message::Message;

#[test]
fn the_checklist_is_the_documented_object() {
    let checks = [
        Check::well("one", "fine"),
        Check::said("two", Message::new("cannot do it: no", "do that; or that")),
    ];
    assert!(!all_passed(&checks) && all_passed(&checks[..1]));
    let value: serde_json::Value = serde_json::from_str(&json(&checks).unwrap()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"version": 1, "ok": false, "checks": [
            {"name": "one", "ok": true, "detail": "fine", "fix": null},
            {"name": "two", "ok": false, "detail": "cannot do it: no", "fix": "do that; or that"},
        ]})
    );
    let coloured = text(&checks);
    assert_eq!(
        anstream::adapter::strip_str(&coloured).to_string(),
        "ok    one  fine\nFAIL  two  cannot do it: no; do that; or that\n"
    );
    assert!(coloured.contains("\u{1b}[31mFAIL\u{1b}[0m"), "{coloured}");
}
