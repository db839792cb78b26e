//! The README's program is the example, which is run on devices.

#[test]
fn the_readme_shows_the_example() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/tile.rs");
    let (_, program) = example.split_once("\n\n").expect("a line about it, and then the program");
    assert!(readme.contains(&format!("```rust,no_run\n{program}```")), "copy one to the other");
    assert!(program.lines().count() < 40);
}
