//! The main job on real input: what word_count says of a tree is byte for byte what find, tr, sort and uniq say of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{build_folder, cdylib, command, run, skipped};

/// Builds the program against the library that cargo just built. Each test has a folder of its own: they run side by side.
fn word_count(test: &str) -> PathBuf {
    let folder = build_folder("word_count").join(test);
    let program = folder.join("word_count");
    run(command("make")
        .args(["--no-print-directory", "-C", "c_examples"])
        .arg(&program)
        .arg(format!("BUILD={}", folder.display()))
        .arg(format!("LIBDIR={}", cdylib().parent().expect("it lies in a folder").display())));
    program
}

/// The program under a watchdog.
fn counting(program: &Path, directory: &Path) -> Command {
    let mut count = command("timeout");
    count.arg("300").arg(program).arg(directory);
    count
}

fn finish(count: &mut Command) -> (Output, String) {
    let output = count.output().expect("it was just built");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

/// What the standard tools say of the files below `directory`, but for those with the name `except`. grep ends each file's last line,
/// so that no word goes on in the next file.
fn reference(directory: &Path, except: &str) -> Vec<u8> {
    let script = "find \"$1\" -type f ! -name \"$2\" -exec grep -ah '' {} + | tr -cs 'A-Za-z' '\\n' | tr 'A-Z' 'a-z' |
        sed '/^$/d' | sort | uniq -c";
    let output = command("sh")
        .env("LC_ALL", "C")
        .args(["-c", script, "sh"])
        .arg(directory)
        .arg(except)
        .output()
        .expect("there is a shell");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

fn assert_same(list: &Path, expected: &[u8]) {
    let actual = fs::read(list).expect("word_count wrote its list");
    if actual != expected {
        let beside = list.with_extension("expected");
        fs::write(&beside, expected).expect("the target folder is writable");
        panic!("diff {} {}", beside.display(), list.display());
    }
}

/// Numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    /// Words of few letters, so that they come again, in both cases, with all sorts of bytes between them.
    fn text(&mut self, length: usize) -> Vec<u8> {
        const BETWEEN: [&[u8]; 10] = [b" ", b"\n", b", ", b"_", b"42", b"\0", b"\xff\xc1", "é".as_bytes(), b"@[`{", b"\r\n"];
        let mut text = Vec::with_capacity(length + 16);
        while text.len() < length {
            for _ in 0..=self.below(6) {
                let letter = b"abcdefgz"[self.below(8)];
                text.push(if self.below(4) == 0 { letter.to_ascii_uppercase() } else { letter });
            }
            text.extend_from_slice(BETWEEN[self.below(BETWEEN.len())]);
        }
        text.truncate(length);
        text
    }
}

/// A tree with everything that a walk and a count may stumble over; `victim.txt` is there twice.
fn tree(root: &Path) {
    let _ = fs::remove_dir_all(root);
    let mut random = Random(20_250_101);
    let write = |path: &Path, bytes: &[u8]| {
        fs::create_dir_all(path.parent().expect("it lies below the root")).expect("the target folder is writable");
        fs::write(path, bytes).expect("the target folder is writable");
    };
    for number in 0..150 {
        let folder = root.join(format!("a{}", random.below(4))).join(format!("b{}", random.below(4)));
        let length = random.below(3000);
        write(&folder.join(format!("{number}.txt")), &random.text(length));
    }
    for path in ["victim.txt", "a0/deep/er/victim.txt"] {
        write(&root.join(path), &random.text(500));
    }
    write(&root.join("empty"), b"");
    write(&root.join("no letters"), b"123 456\n");
    write(&root.join("first"), b"joined");
    write(&root.join("second"), b"apart");
    write(&root.join("UPPER and lower.Txt"), b"Word WORD word wOrD");
    write(&root.join("a name\nof two lines"), b"counted as well\n");
    write(&root.join(OsStr::from_bytes(b"not \xff utf-8")), b"this one too\n");
    write(&root.join("-n"), b"like an option\n");
    write(&root.join("one long word"), "Donaudampfschiff".repeat(20_000).as_bytes());
    write(&root.join("large"), &random.text(5 << 20));
    // Not regular files: a walk that followed or read them would count twice or for ever.
    symlink("large", root.join("link to a file")).expect("the target folder is writable");
    symlink("..", root.join("a0/link to a folder")).expect("the target folder is writable");
    run(command("mkfifo").arg(root.join("fifo")));
}

fn files_in(directory: &Path) -> usize {
    run(command("find").arg(directory).args(["-type", "f", "-printf", "x"])).len()
}

#[test]
fn counts_what_the_standard_tools_count() {
    let program = word_count("generated");
    let root = program.with_file_name("tree");
    tree(&root);
    for workers in ["1", "3"] {
        let list = program.with_file_name(format!("list-{workers}"));
        let (output, stderr) = finish(counting(&program, &root).args(["--top", "0", "--workers", workers, "--list"]).arg(&list));
        assert!(output.status.success() && stderr.is_empty(), "{}\n{stderr}", output.status);
        assert_same(&list, &reference(&root, ""));
    }
}

#[test]
fn counts_the_headers_of_the_system() {
    let root = Path::new("/usr/include");
    if !root.is_dir() {
        return skipped("word_count /usr/include", "there is none");
    }
    let program = word_count("system");
    let list = program.with_file_name("list");
    let (output, stderr) = finish(counting(&program, root).arg("--list").arg(&list));
    assert!(output.status.success() && stderr.is_empty(), "{}\n{stderr}", output.status);
    assert_same(&list, &reference(root, ""));
}

#[test]
fn a_crash_costs_the_file_that_crashed_and_no_other() {
    let program = word_count("crash");
    let root = program.with_file_name("tree");
    tree(&root);
    let list = program.with_file_name("list");
    let (output, stderr) = finish(counting(&program, &root).args(["--crash-on", "victim.txt", "--list"]).arg(&list));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_same(&list, &reference(&root, "victim.txt"));

    let reported = |path: &str| {
        let line = format!("word_count: {}: its worker was killed by signal 11 (", root.join(path).display());
        stderr.lines().filter(|said| said.starts_with(&line)).count()
    };
    assert_eq!([reported("victim.txt"), reported("a0/deep/er/victim.txt")], [1, 1], "{stderr}");
    assert!(stderr.ends_with(&format!("word_count: 2 of {} files failed\n", files_in(&root))), "{stderr}");
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
}

/// More crashes in a row than a pool with the default crash budget forgives.
#[test]
fn a_tree_in_which_every_file_crashes_ends_as_well() {
    let program = word_count("crashes");
    let root = program.with_file_name("tree");
    for number in 0..40 {
        fs::create_dir_all(root.join(number.to_string())).expect("the target folder is writable");
        fs::write(root.join(number.to_string()).join("victim.txt"), "words").expect("the target folder is writable");
    }
    let (output, stderr) = finish(counting(&program, &root).args(["--crash-on", "victim.txt"]));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 words, 0 different, in 0 files\n");
    assert_eq!(stderr.lines().count(), 41, "{stderr}");
    assert!(stderr.ends_with("word_count: 40 of 40 files failed\n"), "{stderr}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let program = word_count("unreadable");
    // Reading at its start fails for everybody, the superuser included.
    let (output, stderr) = finish(&mut counting(&program, Path::new("/proc/self/mem")));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, "word_count: /proc/self/mem: Input/output error\nword_count: 1 of 1 files failed\n");

    let (output, stderr) = finish(&mut counting(&program, Path::new("/nowhere")));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr, "word_count: /nowhere: No such file or directory\n");
}

#[test]
fn wrong_usage_exits_with_2() {
    let program = word_count("usage");
    for arguments in [&[][..], &["a", "b"], &["a", "--top"], &["a", "--top", "-1"], &["a", "--workers", "x"], &["a", "--unknown"]]
    {
        let (output, stderr) = finish(command("timeout").arg("300").arg(&program).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains("usage: word_count DIR"), "{stderr}");
    }
}
