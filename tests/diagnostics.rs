//! What the compiler prints where a handler, or one of its types, doesn't fit: the messages of
//! `#[diagnostic::on_unimplemented]`, which must give what to write instead.
//!
//! Each file in `tests/diagnostics` fails to compile, with the texts of its lines `//~`; one without
//! such lines compiles. Only our own texts are compared, as the rest changes with the compiler.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, as it was built for this test: the newest beside its executable.
fn library() -> PathBuf {
    let executable = std::env::current_exe().expect("the path of the test");
    let folder = executable.parent().expect("it is in a folder");
    let files = fs::read_dir(folder).expect("the folder can be read").flatten();
    let built = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("libnow_serving-") && name.ends_with(".rlib")
    });
    let newest = built.max_by_key(|file| file.metadata().and_then(|about| about.modified()).ok());
    newest.expect("the library is beside the test").path()
}

/// The compiler that has built the library: the one beside cargo.
fn compiler() -> PathBuf {
    let beside = Path::new(env!("CARGO")).with_file_name("rustc");
    if beside.exists() { beside } else { "rustc".into() }
}

/// What the compiler prints; `Err` if it fails.
fn compile(source: &Path, library: &Path) -> Result<String, String> {
    let output = tempfile::tempdir().expect("a temporary directory");
    let dependencies = library.parent().expect("it is in a folder").display();
    let run = Command::new(compiler())
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never"])
        .arg(format!("-Ldependency={dependencies}"))
        .arg(format!("--extern=now_serving={}", library.display()))
        .arg("--out-dir")
        .arg(output.path())
        .arg(source)
        .output()
        .expect("the compiler runs");
    let printed = String::from_utf8_lossy(&run.stderr).into_owned();
    if run.status.success() { Ok(printed) } else { Err(printed) }
}

#[test]
fn what_does_not_fit_is_answered_with_what_to_write() {
    let library = library();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut refused = 0;
    for file in fs::read_dir(folder).expect("the folder can be read") {
        let path = file.expect("the entry can be read").path();
        if path.extension() != Some(OsStr::new("rs")) {
            continue;
        }
        let source = fs::read_to_string(&path).expect("it is text");
        let expected: Vec<_> =
            source.lines().filter_map(|line| line.strip_prefix("//~ ")).collect();
        let path = path.as_path();
        match compile(path, &library) {
            Ok(_) => assert!(expected.is_empty(), "{} compiles", path.display()),
            Err(printed) => {
                assert!(!expected.is_empty(), "{} does not compile:\n{printed}", path.display());
                for text in expected {
                    assert!(printed.contains(text), "{}:\n{printed}\nlacks {text}", path.display());
                }
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 5, "files that don't compile");
}
