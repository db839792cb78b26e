//! A shell script in nvcc's place, which says of every kernel that it spills. Tests of other crates take this file in by its path.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A compiler that writes its source into the "fatbin", as nvcc's argument order and outputs are.
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
        *.cu) source="$1" ;;
    esac
    shift
done
if grep -q BROKEN "$source"; then echo "error: broken on purpose" >&2; exit 2; fi
cat "$source" > "$out"
folder=$(dirname "$source")
printf '%s : %s /usr/include/stdio.h' "$out" "$source" > "$deps"
for header in "$folder"/*.cuh; do [ -e "$header" ] && printf ' %s' "$header" >> "$deps"; done
echo "ptxas info    : Compiling entry function 'k' for 'sm_90a'" >&2
echo "ptxas info    : Function properties for k" >&2
echo "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads" >&2
echo "ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem" >&2
"#
    );
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable");
    path
}
