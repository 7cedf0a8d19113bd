//! Hits, misses, and files that lie.

use super::*;

fn tokenizer(extra: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n{extra}");
    fs::write(folder.path().join("vocab.txt"), vocabulary).unwrap();
    Tokenizer::from_directory(folder.path()).unwrap()
}

fn examples() -> Vec<Example> {
    vec![
        Example::of_text("a b c"),
        Example::of_pair("a", "b c"),
        Example::of_text("c"),
    ]
}

fn path_of(origin: &Origin) -> PathBuf {
    match origin {
        Origin::Kept(path) | Origin::Mended(path) | Origin::Cache(path) => path.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn the_second_time_is_read_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TokenCache::in_folder(folder.path().join("not/yet/there"));
    let encode = |examples: &[Example]| cache.encode(examples, &tokenizer(""), 8).unwrap();
    for rows in [examples(), Vec::new()] {
        let (first, origin) = encode(&rows);
        assert!(matches!(origin, Origin::Kept(_)), "{origin}");
        let (second, origin) = encode(&rows);
        assert!(matches!(origin, Origin::Cache(_)), "{origin}");
        assert_eq!(first, second);
        assert_eq!(first, tokenizer("").encode_all(&rows, 8).unwrap());
    }
}

#[test]
fn what_is_read_is_the_file_and_not_the_texts() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TokenCache::in_folder(folder.path());
    let (rows, tokenizer) = (examples(), tokenizer(""));
    let (mut encodings, origin) = cache.encode(&rows, &tokenizer, 8).unwrap();
    encodings[0].ids[1] += 1;
    let forged = encode(&encodings, &key(&rows, &tokenizer, 8));
    fs::write(path_of(&origin), forged).unwrap();
    assert_eq!(cache.encode(&rows, &tokenizer, 8).unwrap().0, encodings);
}

#[test]
fn anything_that_changes_the_ids_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TokenCache::in_folder(folder.path());
    let mut other = examples();
    other[1].pair = Some("b".to_owned());
    let cases = [
        (examples(), tokenizer(""), 8),
        (other, tokenizer(""), 8),
        (examples(), tokenizer("d"), 8),
        (examples(), tokenizer(""), 5),
    ];
    let origins = cases.iter().map(|(examples, tokenizer, max_length)| {
        cache.encode(examples, tokenizer, *max_length).unwrap().1
    });
    let paths: std::collections::BTreeSet<_> = origins.map(|origin| path_of(&origin)).collect();
    assert_eq!(paths.len(), cases.len());
}

#[test]
fn a_damaged_file_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TokenCache::in_folder(folder.path());
    let (rows, tokenizer) = (examples(), tokenizer(""));
    let (encodings, origin) = cache.encode(&rows, &tokenizer, 8).unwrap();
    let path = path_of(&origin);
    let whole = fs::read(&path).unwrap();
    let key = key(&rows, &tokenizer, 8);
    let mut damaged: Vec<Vec<u8>> = [0, 1, DIGITS, whole.len() - 1]
        .iter()
        .map(|length| whole[..*length].to_vec())
        .collect();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        damaged.push(bytes);
    }
    damaged.push([&whole[..], b"x"].concat());
    // Whole, but of another split; and of fewer rows.
    damaged.push(encode(&encodings, &"0".repeat(DIGITS)));
    damaged.push(encode(&encodings[1..], &key));
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let (again, origin) = cache.encode(&rows, &tokenizer, 8).unwrap();
        assert!(matches!(origin, Origin::Mended(_)), "{origin}");
        assert!(origin.is_remarkable());
        assert_eq!(again, encodings);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn counts_that_the_file_does_not_hold_are_refused() {
    let key = "k".repeat(DIGITS);
    let file = |numbers: &[u32]| {
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), key.as_bytes()].concat();
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let digest = sha256_hex(&bytes);
        [&bytes, digest.as_bytes()].concat()
    };
    let row = Encoding {
        ids: vec![7],
        type_ids: vec![0],
    };
    assert_eq!(decode(&file(&[1, 1, 7, 0]), &key), Some(vec![row]));
    let lies: [&[u32]; 6] = [
        &[],
        &[2, 1],
        &[1, 2, 7, 0],
        &[1, 1, 7, 0, 0],
        &[u32::MAX],
        &[1, u32::MAX],
    ];
    for numbers in lies {
        assert_eq!(decode(&file(numbers), &key), None, "{numbers:?}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_nothing_but_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let cache = TokenCache::in_folder(file.join("tokens"));
    let (encodings, origin) = cache.encode(&examples(), &tokenizer(""), 8).unwrap();
    assert_eq!(encodings.len(), 3);
    assert!(matches!(origin, Origin::NotKept(_)), "{origin}");
    assert!(origin.to_string().contains("--no-cache"), "{origin}");
}

#[test]
fn without_a_cache_nothing_is_written() {
    let (encodings, origin) = TokenCache::off()
        .encode(&examples(), &tokenizer(""), 8)
        .unwrap();
    assert_eq!(encodings.len(), 3);
    assert!(matches!(origin, Origin::Texts), "{origin}");
    assert!(!origin.is_remarkable());
}

#[test]
fn the_folder_is_found_in_the_documented_order() {
    let cache = |variables: &[(&str, &str)]| {
        TokenCache::from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let all = [
        ("BADGE_CACHE", "/a"),
        ("XDG_CACHE_HOME", "/b"),
        ("HOME", "/c"),
    ];
    let folders = ["/a/tokens", "/b/badge/tokens", "/c/.cache/badge/tokens"];
    for (skipped, folder) in folders.iter().enumerate() {
        assert_eq!(cache(&all[skipped..]), TokenCache::in_folder(*folder));
    }
    let relative = [("XDG_CACHE_HOME", "b"), ("BADGE_CACHE", " "), all[2]];
    assert_eq!(cache(&relative), TokenCache::in_folder(folders[2]));
    assert_eq!(cache(&[]), TokenCache::off());
    assert_eq!(cache(&[]).folder(), None);
}
