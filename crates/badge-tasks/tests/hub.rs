//! The hub client against a small HTTP server in this process.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use badge_tasks::hash::sha256_hex;
use badge_tasks::hub::Token;
use badge_tasks::{Error, Hub, HubEnvironment, HubId, Task};

use server::{Reply, Request, Server};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of a small model; the weights are stored as large files are.
fn model_files() -> BTreeMap<&'static str, Vec<u8>> {
    let weights: Vec<u8> = (0..100_000_u32)
        .map(|byte| (byte * 31 % 251) as u8)
        .collect();
    BTreeMap::from([
        ("config.json", b"{\"model_type\": \"albert\"}".to_vec()),
        ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec()),
        ("model.safetensors", weights),
    ])
}

/// What the real hub says of a file: its commit, its ETag, and for large files where they lie.
fn describe(name: &str, content: &[u8]) -> Reply {
    let etag = if name.contains("json") {
        format!("\"{}\"", &sha256_hex(content)[..40])
    } else {
        format!("\"{}\"", sha256_hex(content))
    };
    Reply::ok(content)
        .header("ETag", &etag)
        .header("X-Repo-Commit", COMMIT)
}

/// Serves `files` of `org/name` directly.
fn serve(files: BTreeMap<&'static str, Vec<u8>>) -> Server {
    Server::start(move |request| answer(request, &files))
}

fn answer(request: &Request, files: &BTreeMap<&'static str, Vec<u8>>) -> Reply {
    let prefixes = [
        format!("/org/name/resolve/{COMMIT}/"),
        "/org/name/resolve/main/".to_owned(),
    ];
    let name = prefixes
        .iter()
        .find_map(|prefix| request.path.strip_prefix(prefix));
    match name.and_then(|name| files.get(name).map(|content| (name, content))) {
        Some((name, content)) => describe(name, content).for_range(request),
        None => Reply::status(404),
    }
}

fn environment(cache: &Path, endpoint: &str) -> HubEnvironment {
    HubEnvironment {
        cache: cache.to_path_buf(),
        endpoint: endpoint.to_owned(),
        token: Token::new("secret-token"),
        offline: false,
    }
}

fn id() -> HubId {
    "org/name".parse().unwrap()
}

fn assert_complete(snapshot: &Path) {
    for (name, content) in model_files() {
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), content, "{name}");
    }
}

/// The names in the blobs folder of `org/name`.
fn blobs(cache: &Path) -> Vec<String> {
    let folder = cache.join("models--org--name/blobs");
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn model_is_downloaded_into_pythons_layout() {
    let cache = tempfile::tempdir().unwrap();
    let server = serve(model_files());
    let hub = Hub::new(environment(cache.path(), server.url()));
    assert_eq!(hub.cached_model(&id()), None);
    let mut last = BTreeMap::new();
    let snapshot = hub
        .fetch_model(&id(), &mut |progress| {
            last.insert(
                progress.file.to_owned(),
                (progress.received, progress.total),
            );
        })
        .unwrap();
    let repository = cache.path().join("models--org--name");
    assert_eq!(snapshot, repository.join("snapshots").join(COMMIT));
    assert_eq!(
        fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    assert_complete(&snapshot);
    let weights = sha256_hex(&model_files()["model.safetensors"]);
    assert!(blobs(cache.path()).contains(&weights));
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(weights)
    );
    assert_eq!(last["model.safetensors"], (100_000, Some(100_000)));
    assert!(
        repository
            .join(".no_exist")
            .join(COMMIT)
            .join("vocab.txt")
            .is_file()
    );
}

#[test]
fn cached_model_needs_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let server = serve(model_files());
    let hub = Hub::new(environment(cache.path(), server.url()));
    let snapshot = hub.fetch_model(&id(), &mut |_| {}).unwrap();
    drop(server);
    assert_eq!(hub.resolve("org/name", &mut |_| {}).unwrap(), snapshot);
    let offline = HubEnvironment {
        offline: true,
        ..environment(cache.path(), "http://none")
    };
    let hub = Hub::new(offline);
    assert_eq!(hub.resolve("org/name", &mut |_| {}).unwrap(), snapshot);
    assert_eq!(hub.fetch_model(&id(), &mut |_| {}).unwrap(), snapshot);
    let at_commit = format!("org/name@{COMMIT}");
    assert_eq!(hub.resolve(&at_commit, &mut |_| {}).unwrap(), snapshot);
}

#[test]
fn offline_mode_names_what_is_missing() {
    let cache = tempfile::tempdir().unwrap();
    let offline = HubEnvironment {
        offline: true,
        ..environment(cache.path(), "http://none")
    };
    let hub = Hub::new(offline);
    let error = hub
        .resolve("org/name", &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("lacks revision `main` and HF_HUB_OFFLINE is set"),
        "{error}"
    );
    let server = serve(model_files());
    Hub::new(environment(cache.path(), server.url()))
        .fetch_model(&id(), &mut |_| {})
        .unwrap();
    let snapshot = cache
        .path()
        .join("models--org--name/snapshots")
        .join(COMMIT);
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    let error = hub
        .resolve("org/name", &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("lacks its weights"), "{error}");
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn second_fetch_downloads_nothing_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = serve(model_files());
    let hub = Hub::new(environment(cache.path(), server.url()));
    hub.fetch_model(&id(), &mut |_| {}).unwrap();
    let before = server.requests().len();
    hub.fetch_model(&id(), &mut |_| {}).unwrap();
    let requests = server.requests();
    let methods: Vec<_> = requests[before..]
        .iter()
        .map(|request| request.method.as_str())
        .collect();
    assert_eq!(methods, ["HEAD"], "only the commit is asked for");
}

#[test]
fn statuses_become_advice() {
    let cases = [
        (401, "the hub refuses access (status 401)"),
        (403, "set HF_TOKEN"),
        (404, "not found on the hub; check the name"),
        (503, "the hub answered with status 503; try again later"),
    ];
    for (status, message) in cases {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(move |_| Reply::status(status));
        let hub = Hub::new(environment(cache.path(), server.url()));
        let error = hub
            .resolve("org/name", &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("secret-token"), "{error}");
        assert_eq!(
            fs::read_dir(cache.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }
}

#[test]
fn absent_server_is_named() {
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let hub = Hub::new(environment(cache.path(), &url));
    let error = hub.resolve("org/name", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::HubUnreachable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("check the network and HF_ENDPOINT"),
        "{error}"
    );
}

#[test]
fn answers_of_another_server_are_not_taken_for_a_hubs() {
    let replies: [fn() -> Reply; 3] = [
        || Reply::ok(b"hello"),
        || Reply::ok(b"x").header("ETag", "\"e\""),
        || {
            Reply::ok(b"x")
                .header("ETag", "\"../../x\"")
                .header("X-Repo-Commit", COMMIT)
        },
    ];
    for reply in replies {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(move |_| reply());
        let hub = Hub::new(environment(cache.path(), server.url()));
        let error = hub.resolve("org/name", &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::HubProtocol { .. }), "{error}");
    }
}

#[test]
fn token_stays_with_its_server() {
    let cache = tempfile::tempdir().unwrap();
    let store = Server::start(|request| {
        let content = &model_files()["model.safetensors"];
        Reply::ok(content).for_range(request)
    });
    let elsewhere = format!("{}/large", store.url());
    let files = model_files();
    let server = Server::start(move |request| {
        let reply = answer(request, &files);
        if !request.path.ends_with("model.safetensors") {
            return reply;
        }
        let content = &files["model.safetensors"];
        Reply::status(302)
            .header("Location", &elsewhere)
            .header("X-Repo-Commit", COMMIT)
            .header("X-Linked-ETag", &format!("\"{}\"", sha256_hex(content)))
            .header("X-Linked-Size", &content.len().to_string())
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    let snapshot = hub.fetch_model(&id(), &mut |_| {}).unwrap();
    assert_complete(&snapshot);
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.authorization() == Some("Bearer secret-token"))
    );
    assert!(!store.requests().is_empty());
    assert!(
        store
            .requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
}

#[test]
fn renamed_repository_is_followed() {
    let cache = tempfile::tempdir().unwrap();
    let files = model_files();
    let server = Server::start(move |request| match request.path.strip_prefix("/old/") {
        Some(rest) => Reply::status(307).header("Location", &format!("/org/{rest}")),
        None => answer(request, &files),
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    assert_complete(&hub.resolve("old/name", &mut |_| {}).unwrap());
}

#[test]
fn endless_redirects_end() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| Reply::status(302).header("Location", &request.path));
    let hub = Hub::new(environment(cache.path(), server.url()));
    let error = hub
        .resolve("org/name", &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("it redirects without end"), "{error}");
}

#[test]
fn broken_download_is_taken_up_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let files = model_files();
    // Every answer with weights ends after 40,000 bytes.
    let server = Server::start(move |request| {
        let reply = answer(request, &files);
        if request.path.ends_with("model.safetensors") {
            reply.cut_after(40_000)
        } else {
            reply
        }
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    let snapshot = hub.fetch_model(&id(), &mut |_| {}).unwrap();
    assert_complete(&snapshot);
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .filter_map(|request| request.header("range"))
        .collect();
    assert_eq!(ranges, ["bytes=40000-", "bytes=80000-"]);
    assert!(
        blobs(cache.path())
            .iter()
            .all(|name| !name.ends_with(".incomplete"))
    );
}

#[test]
fn download_that_never_ends_well_can_be_resumed_later() {
    let cache = tempfile::tempdir().unwrap();
    let files = model_files();
    let server = Server::start(move |request| {
        let reply = answer(request, &files);
        if request.path.ends_with("model.safetensors") {
            reply.cut_after(1_000)
        } else {
            reply
        }
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    let error = hub.resolve("org/name", &mut |_| {}).unwrap_err();
    assert!(
        matches!(
            error,
            Error::HubTruncated {
                received: 3_000,
                expected: 100_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(hub.cached_model(&id()), None, "half a model is none");
    let server = serve(model_files());
    let hub = Hub::new(environment(cache.path(), server.url()));
    assert_complete(&hub.resolve("org/name", &mut |_| {}).unwrap());
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .filter_map(|request| request.header("range"))
        .collect();
    assert_eq!(ranges, ["bytes=3000-"]);
}

#[test]
fn server_without_ranges_sends_the_whole_again() {
    let cache = tempfile::tempdir().unwrap();
    let files = model_files();
    let etag = sha256_hex(&files["model.safetensors"]);
    let blobs = cache.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(
        blobs.join(format!("{etag}.incomplete")),
        "from another world",
    )
    .unwrap();
    let server = Server::start(move |request| {
        let plain = Request {
            headers: Vec::new(),
            ..request.clone()
        };
        answer(&plain, &files)
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    assert_complete(&hub.resolve("org/name", &mut |_| {}).unwrap());
}

#[test]
fn wrong_content_is_refused_and_dropped() {
    let cache = tempfile::tempdir().unwrap();
    let files = model_files();
    let server = Server::start(move |request| {
        let reply = answer(request, &files);
        if request.method == "GET" && request.path.ends_with("model.safetensors") {
            return Reply::ok(&vec![7; 100_000]);
        }
        reply
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    let error = hub.resolve("org/name", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::HubCorrupt { .. }), "{error}");
    assert_eq!(hub.cached_model(&id()), None);
    let server = serve(model_files());
    let hub = Hub::new(environment(cache.path(), server.url()));
    assert_complete(&hub.resolve("org/name", &mut |_| {}).unwrap());
}

#[test]
fn shards_and_other_weights_are_found() {
    let index =
        br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors",
                     "c": "model-1-of-2.safetensors"}}"#;
    let sharded = BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("vocab.txt", b"a".to_vec()),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-1-of-2.safetensors", vec![1; 10]),
        ("model-2-of-2.safetensors", vec![2; 20]),
    ]);
    let pickled = BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("vocab.txt", b"a".to_vec()),
        ("pytorch_model.bin", vec![3; 10]),
    ]);
    for files in [sharded, pickled] {
        let cache = tempfile::tempdir().unwrap();
        let server = serve(files.clone());
        let hub = Hub::new(environment(cache.path(), server.url()));
        let snapshot = hub.fetch_model(&id(), &mut |_| {}).unwrap();
        for (name, content) in files {
            assert_eq!(fs::read(snapshot.join(name)).unwrap(), content, "{name}");
        }
        assert_eq!(hub.cached_model(&id()), Some(snapshot));
    }
}

#[test]
fn repository_without_weights_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let server = serve(BTreeMap::from([("config.json", b"{}".to_vec())]));
    let hub = Hub::new(environment(cache.path(), server.url()));
    let error = hub
        .resolve("org/name", &mut |_| {})
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "org/name: holds no model.safetensors and no pytorch_model.bin; \
         other weight formats cannot be read"
    );
}

#[test]
fn index_that_climbs_out_of_the_cache_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let index = br#"{"weight_map": {"a": "../../evil.safetensors"}}"#.to_vec();
    let server = serve(BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index),
    ]));
    let hub = Hub::new(environment(cache.path(), server.url()));
    let error = hub
        .resolve("org/name", &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`../../evil.safetensors` is not the name of a shard"),
        "{error}"
    );
}

#[test]
fn local_directory_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(environment(folder.path(), "http://none"));
    let name = folder.path().to_str().unwrap();
    assert_eq!(hub.resolve(name, &mut |_| {}).unwrap(), folder.path());
    let error = hub
        .resolve("./no/such/dir", &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no such directory"), "{error}");
}

#[test]
fn glue_comes_from_the_hubs_data_set() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        let path = request.path.replace(COMMIT, "main");
        match path.strip_prefix("/datasets/nyu-mll/glue/resolve/main/rte/") {
            Some(name) if name.ends_with("-00000-of-00001.parquet") => {
                describe(name, name.as_bytes()).for_range(request)
            }
            _ => Reply::status(404),
        }
    });
    let hub = Hub::new(environment(cache.path(), server.url()));
    let task = Task::builtin("rte").unwrap();
    let snapshot = hub.glue(&task, &mut |_| {}).unwrap();
    let expected = cache
        .path()
        .join("datasets--nyu-mll--glue/snapshots")
        .join(COMMIT);
    assert_eq!(snapshot, expected);
    for split in ["train", "validation", "test"] {
        assert!(
            snapshot
                .join(format!("rte/{split}-00000-of-00001.parquet"))
                .is_file()
        );
    }
    drop(server);
    assert_eq!(hub.glue(&task, &mut |_| {}).unwrap(), snapshot);
}
