//! A shell script in nvcc's place, which says of every kernel that it spills. Tests of other crates take this file in by its path.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A compiler that writes its source into the "fatbin", as nvcc's argument order and outputs are. Its one kernel `k` has the
/// PTX that the source asks for: lines that begin with `// param: ` and, for each architecture, `// ptx: ` are taken over,
/// those that begin with `// ptx sm_90a: ` for that target alone.
pub(crate) fn fake_nvcc(folder: &Path, release: &str) -> PathBuf {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    let path = bin.join("nvcc");
    let script = format!(
        r#"#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release x, V{release}"; exit 0; fi
while [ $# -gt 0 ]; do
    case "$1" in
        -o) out="$2"; shift ;;
        -MF) deps="$2"; shift ;;
        -I) includes="$includes $2"; shift ;;
        --keep-dir) keep="$2"; shift ;;
        -gencode) codes="$codes $2"; shift ;;
        *.cu) source="$1" ;;
    esac
    shift
done
if grep -q BROKEN "$source"; then echo "error: broken on purpose" >&2; exit 2; fi
cat "$source" > "$out"
folder=$(dirname "$source")
printf '%s : %s /usr/include/stdio.h' "$out" "$source" > "$deps"
for place in "$folder" $includes; do
    for header in "$place"/*.cuh; do [ -e "$header" ] && printf ' %s' "$header" >> "$deps"; done
done
for code in $codes; do
    virtual=${{code%%,*}}
    target=sm_${{virtual#arch=compute_}}
    {{
        printf '.version 9.0\n.target %s\n.visible .entry k(' "$target"
        sed -n 's|^// param: ||p' "$source"
        printf ')\n{{\n'
        sed -n "s|^// ptx: ||p; s|^// ptx $target: ||p" "$source"
        printf 'ret;\n}}\n'
    }} > "$keep/some.$target.ptx"
    case "$code" in *code=compute_*) continue ;; esac
    if grep -q SILENT "$source"; then continue; fi
    echo "ptxas info    : Compiling entry function 'k' for '${{code#*code=}}'" >&2
    echo "ptxas info    : Function properties for k" >&2
    echo "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads" >&2
    echo "ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem" >&2
done
"#
    );
    write_elsewhere(&path, &script);
    path
}

/// Writes an executable in another process. Were it open for writing in this one, a child that another thread of the tests starts
/// at that moment would inherit it, and until that one is a program of its own nobody could run the script ("Text file busy").
fn write_elsewhere(path: &Path, script: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the shell runs");
    let mut input = shell.stdin.take().expect("it is piped");
    input.write_all(script.as_bytes()).expect("the shell reads");
    drop(input);
    assert!(shell.wait().expect("the shell ends").success(), "{}", path.display());
}
