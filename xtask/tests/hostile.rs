//! Hostile case files: each is refused with an error that names the file and the fault, and none panics.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use xtask::verify::Case;
use xtask::verify::encode::{RawFile, RawTensor};

fn read(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    std::fs::read(path).unwrap()
}

/// bf16, 2×6 in two seeds of attention heads, the first GRAFTING.
fn small() -> RawFile {
    Case::parse("small", &read("case-001.safetensors")).unwrap().raw()
}

/// bf16, 1×51 in three seeds, with a TRAINING convolution under reconstruction.
fn reconstructing() -> RawFile {
    Case::parse("r", &read("case-013.safetensors")).unwrap().raw()
}

/// bf16, 7×5 in five seeds of one column, with bottlenecks.
fn bottlenecks() -> RawFile {
    Case::parse("b", &read("case-016.safetensors")).unwrap().raw()
}

fn refusal(bytes: &[u8]) -> String {
    let error = Case::parse("hostile.safetensors", bytes).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("hostile.safetensors: "), "{message}");
    assert!(message.len() < 1000, "a message to read, not {}", message.len());
    message
}

fn tensor<'a>(file: &'a mut RawFile, name: &str) -> &'a mut RawTensor {
    file.tensors.iter_mut().find(|t| t.name == name).unwrap()
}

fn drop_tensor(file: &mut RawFile, name: &str) {
    let before = file.tensors.len();
    file.tensors.retain(|t| t.name != name);
    assert_eq!(file.tensors.len(), before - 1, "{name} was there");
}

fn set(file: &mut RawFile, key: &str, value: &str) {
    file.metadata.insert(key.to_owned(), value.to_owned());
}

/// A file with this header and no data.
fn header_only(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

type Attack = (&'static str, fn() -> RawFile, fn(&mut RawFile), &'static str);

#[test]
fn every_damage_to_metadata_is_named() {
    let attacks: &[Attack] = &[
        ("format", small, |f| set(f, "format", "kasmina-case/2"), "newer than kasmina-case/1"),
        ("format", small, |f| set(f, "format", "kasmina-case/0"), "kasmina-case/0"),
        ("format", small, |f| set(f, "format", "kasmina-case/x"), "kasmina-case/x"),
        ("format", small, |f| set(f, "format", "pt"), "\"pt\""),
        ("chunk 0", small, |f| set(f, "chunk", "0"), "from 1 to hidden = 6"),
        ("chunk 7", small, |f| set(f, "chunk", "7"), "chunk is \"7\""),
        ("chunk 2^64", small, |f| set(f, "chunk", "18446744073709551616"), "chunk is"),
        ("chunk 1", small, |f| set(f, "chunk", "1"), "a list of ceil(hidden/chunk) = 6"),
        ("chunk -1", small, |f| set(f, "chunk", "-1"), "chunk is \"-1\""),
        ("mode", small, |f| set(f, "stability", "Fast"), "fast, adaptive or strict"),
        ("epsilon", small, |f| set(f, "epsilon", "nan"), "epsilon is \"nan\""),
        ("epsilon", small, |f| set(f, "epsilon", "-1"), "at least 0"),
        ("lower", small, |f| set(f, "lower", "-inf"), "lower is \"-inf\""),
        ("upper", small, |f| set(f, "upper", "-1e6"), "above lower"),
        ("sigmas", small, |f| set(f, "sigmas", "0"), "above 0"),
        ("dead", small, |f| set(f, "dead_epsilon", ""), "dead_epsilon is \"\""),
        ("seeds", small, |f| set(f, "seeds", "{"), "JSON list"),
        ("seeds", small, |f| set(f, "seeds", "[]"), "a list of 0"),
        ("seeds", small, |f| set(f, "seeds", "[{\"kind\":\"none\",\"x\":1}]"), "JSON list"),
        ("seeds", small, |f| set(f, "seeds", &"[".repeat(100_000)), "JSON list"),
        (
            "kind",
            small,
            |f| set(f, "seeds", "[{\"kind\":\"magic\"},{\"kind\":\"attention_head\"}]"),
            "seed 0: kind is magic",
        ),
        (
            "kind none in GRAFTING",
            small,
            |f| set(f, "seeds", "[{\"kind\":\"none\"},{\"kind\":\"attention_head\"}]"),
            "state 3",
        ),
        (
            "activation absent",
            small,
            |f| set(f, "seeds", "[{\"kind\":\"dense\"},{\"kind\":\"attention_head\"}]"),
            "activation is absent",
        ),
        (
            "activation unknown",
            small,
            |f| {
                let seeds = "[{\"kind\":\"dense\",\"activation\":\"elu\"},{\"kind\":\"none\"}]";
                set(f, "seeds", seeds);
            },
            "activation is elu",
        ),
        (
            "activation of none",
            small,
            |f| {
                let seeds =
                    "[{\"kind\":\"attention_head\",\"activation\":\"relu\"},{\"kind\":\"none\"}]";
                set(f, "seeds", seeds);
            },
            "activation is relu",
        ),
        (
            "objective absent",
            reconstructing,
            |f| {
                let seeds = f.metadata["seeds"].replace(",\"objective\":\"reconstruction\"", "");
                set(f, "seeds", &seeds);
            },
            "objective is absent",
        ),
        (
            "objective unknown",
            reconstructing,
            |f| {
                let seeds = f.metadata["seeds"].replace("\"reconstruction\"", "\"win\"");
                set(f, "seeds", &seeds);
            },
            "objective is win",
        ),
        (
            "a long value is cut",
            small,
            |f| set(f, "chunk", &"9".repeat(1 << 20)),
            "(1048576 bytes)",
        ),
    ];
    for (what, file, attack, part) in attacks {
        let mut file = file();
        attack(&mut file);
        let message = refusal(&file.to_bytes());
        assert!(message.contains(part), "{what}: {message:?} should say {part:?}");
    }
}

#[test]
fn every_missing_key_and_tensor_is_named() {
    for make in [small, reconstructing, bottlenecks] {
        for key in make().metadata.keys() {
            let mut file = make();
            file.metadata.remove(key);
            let message = refusal(&file.to_bytes());
            assert!(message.contains(&format!("metadata {key} is missing")), "{message}");
        }
        for t in make().tensors {
            let mut file = make();
            drop_tensor(&mut file, &t.name);
            let message = refusal(&file.to_bytes());
            assert!(message.contains(&format!("tensor {} is missing", t.name)), "{message}");
        }
    }
}

#[test]
fn every_wrong_dtype_and_shape_is_named() {
    for make in [small, reconstructing, bottlenecks] {
        for t in make().tensors {
            let mut file = make();
            // As many bytes, of a type that fits nothing here.
            let target = tensor(&mut file, &t.name);
            (target.dtype, target.shape) = ("I8", vec![t.bytes.len()]);
            let message = refusal(&file.to_bytes());
            assert!(message.contains(&t.name), "{message}");
            assert!(message.contains("I8") || message.contains("shape"), "{message}");

            let mut file = make();
            tensor(&mut file, &t.name).dtype = match t.dtype {
                "F32" => "I32",
                "F64" => "I64",
                "U8" => "BOOL",
                _ => "I16",
            };
            let message = refusal(&file.to_bytes());
            assert!(
                message.contains(&format!("tensor {} has dtype I", t.name))
                    || message.contains("BOOL"),
                "{message}"
            );

            let mut file = make();
            let target = tensor(&mut file, &t.name);
            target.shape.push(1);
            let message = refusal(&file.to_bytes());
            assert!(message.contains(&format!("tensor {} has shape", t.name)), "{message}");

            let mut file = make();
            let target = tensor(&mut file, &t.name);
            (target.shape, target.bytes) = (vec![0; t.shape.len()], vec![]);
            let message = refusal(&file.to_bytes());
            assert!(message.contains(&format!("tensor {} has shape", t.name)), "{message}");
        }
    }
}

#[test]
fn values_out_of_range_are_named() {
    let mut file = small();
    tensor(&mut file, "state").bytes[1] = 11;
    assert!(refusal(&file.to_bytes()).contains("state[1] is 11"));

    let mut file = small();
    tensor(&mut file, "alpha").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refusal(&file.to_bytes()).contains("alpha[0] is NaN"));

    let mut file = small();
    tensor(&mut file, "seed1.weight").bytes[8..12].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(refusal(&file.to_bytes()).contains("seed1.weight[2] is inf"));

    let mut file = small();
    let bytes = &mut tensor(&mut file, "grad_y").bytes;
    bytes[..2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    assert!(refusal(&file.to_bytes()).contains("grad_y[0] is NaN"));

    // One column, so that a convolution of seventeen taps has no other fault.
    let mut file = bottlenecks();
    let weight = tensor(&mut file, "seed4.weight");
    (weight.shape, weight.bytes) = (vec![17], vec![0; 68]);
    assert!(refusal(&file.to_bytes()).contains("[k] with k from 1 to 16"));
}

#[test]
fn a_tensor_that_nobody_would_check_is_refused() {
    for name in ["expect.grad.seed1.alpha", "expect.grad.seed7.weight", "expect.z", "seed2.weight"]
    {
        let mut file = small();
        file.tensors.push(RawTensor {
            name: name.to_owned(),
            dtype: "F64",
            shape: vec![1],
            bytes: vec![0; 8],
        });
        let message = refusal(&file.to_bytes());
        assert!(message.contains(&format!("tensor {name} has no place")), "{message}");
    }
}

#[test]
fn lies_of_the_header_are_named() {
    let good = small().to_bytes();
    let with_length = |n: u64| {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    for n in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40, good.len() as u64] {
        let message = refusal(&with_length(n));
        assert!(message.contains(&format!("header length is {n}")), "{message}");
    }
    assert!(refusal(&with_length(0)).contains("header"));
    assert!(refusal(&with_length(17)).contains("header"));
    for length in 0..8 {
        refusal(&good[..length]);
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(refusal(&longer).contains("safetensors"));
    assert!(refusal(&good[..good.len() - 1]).contains("data_offsets"));
    let mut not_text = good;
    not_text[9] = 0xff;
    assert!(refusal(&not_text).contains("header"));
}

#[test]
fn offsets_that_overlap_overflow_or_run_backwards_are_named() {
    let entry = |offsets: &str, shape: &str| {
        header_only(&format!(
            "{{\"x\":{{\"dtype\":\"U8\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        ))
    };
    for (offsets, shape, part) in [
        ("[0,18446744073709551600]", "[18446744073709551600]", "18446744073709551600"),
        ("[0,18446744073709551615]", "[18446744073709551615]", "the data has 0 bytes"),
        ("[18446744073709551615,0]", "[1]", "[18446744073709551615, 0]"),
        ("[0,18446744073709551616]", "[1]", "header"),
        ("[0,-1]", "[1]", "header"),
        ("[0]", "[1]", "header"),
        ("[0,0]", "[18446744073709551615,18446744073709551615]", "overflow"),
        ("[0,0]", "[4294967296,4294967296]", "safetensors"),
        ("[0,0]", "[1]", "safetensors"),
    ] {
        let message = refusal(&entry(offsets, shape)).to_lowercase();
        assert!(message.contains(part), "{offsets} {shape}: {message:?} should say {part:?}");
    }

    // Two tensors over the same bytes: the header is written by hand, and the data is one of them.
    let overlap = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\
                   \"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}";
    let mut bytes = header_only(overlap);
    bytes.extend([0; 6]);
    assert!(refusal(&bytes).contains("safetensors"));
    let hole = overlap.replace("[2,6]", "[5,9]");
    let mut bytes = header_only(&hole);
    bytes.extend([0; 9]);
    assert!(refusal(&bytes).contains("safetensors"));
}

#[test]
fn an_empty_container_and_deep_json_are_refused() {
    assert!(refusal(&header_only("{}")).contains("format is missing"));
    assert!(refusal(&header_only("[]")).contains("header"));
    assert!(refusal(&header_only("null")).contains("header"));
    refusal(&header_only(&format!("{{\"x\":{}", "[".repeat(200_000))));
    refusal(&header_only("{\"__metadata__\":{\"data_offsets\":\"no\"}}"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let message = Case::read(directory.path()).unwrap_err().to_string();
    assert!(message.contains("cannot be read"), "{message}");
}

/// Inputs that fuzzing found: none may panic.
#[test]
fn regressions_stay_fixed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "case") {
            let name = path.display().to_string();
            let _ = Case::parse(&name, &std::fs::read(&path).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Any damage is refused or harmless, and never a panic; what is still a case encodes again.
    #[test]
    fn damage_never_panics(
        which in 0..3usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = [small, reconstructing, bottlenecks][which]().to_bytes();
        // Most of a file is numbers that may be anything: aim half the flips at the header.
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (i, (at, value)) in flips.iter().enumerate() {
            let range = if i % 2 == 0 { header } else { bytes.len() };
            bytes[at.index(range)] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(case) = Case::parse("damaged", &bytes) {
            Case::parse("again", &case.encode()).unwrap();
        }
    }
}
