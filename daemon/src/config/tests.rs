#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{path::Path, time::Duration};

use p2pnode_protocol::quote;
use proptest::prelude::*;
use serde_json::json;

use super::{kind::*, *};

mod kinds;

const PROGRAM: Program = Program {
    name: "demo",
    env: "DEMO",
};

#[derive(Debug, Clone, PartialEq)]
struct Demo {
    count: usize,
    on: bool,
    wait: Duration,
    names: Vec<String>,
    level: Option<std::net::SocketAddr>,
    friends: std::collections::BTreeMap<String, u32>,
}

const NAME: Kind<String> = Kind {
    expects: "a name in lower case",
    form: Form::Text,
    parse: |text| match text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        true => Ok(text.to_owned()),
        false => Err(format!("{} is not in lower case", quote(text))),
    },
    print: String::clone,
};

fn read(reader: &mut Reader<'_>) -> Demo {
    Demo {
        count: reader.one("count", "How many.", &COUNT, "3"),
        on: reader.one("sub.on", "Whether.", &BOOL, "true"),
        wait: reader.one("sub.wait", "How long.", &DURATION, "30s"),
        names: reader.list("sub.names", "Who.", &NAME, &["ann"]),
        level: reader.optional("admin.listen", "Where.", &SOCKET_ADDR),
        friends: reader.entries(
            "friends",
            "Friends by name.",
            |name| match name.len() {
                0..8 => Ok(()),
                _ => Err(format!("{} is too long a name", quote(name))),
            },
            |reader| reader.required("age", "How old.", &LIMIT),
        ),
    }
}

fn sources(file: &str, env: &[(&str, &str)], flags: Flags) -> Sources {
    Sources {
        file: Some(Document::parse(Path::new("f.yaml"), file.to_owned()).unwrap()),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags,
    }
}

fn from_file(file: &str) -> Result<Demo, Vec<String>> {
    faults(&sources(file, &[], Flags::default()))
}

fn faults(sources: &Sources) -> Result<Demo, Vec<String>> {
    load(&PROGRAM, sources, read)
        .map(|loaded| loaded.config)
        .map_err(|faults| faults.to_string().lines().map(str::to_owned).collect())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn nothing_given_is_the_defaults() {
    let config = from_file("").unwrap();
    assert_eq!(config.count, 3);
    assert_eq!(config.wait, Duration::from_secs(30));
    assert_eq!(config.names, ["ann"]);
    assert_eq!(config.level, None);
    for nothing in ["count:\n", "sub:\n", "sub: { on: ~ }\n", "friends:\n"] {
        assert_eq!(from_file(nothing).unwrap(), config, "{nothing}");
    }
}

#[test]
fn flags_beat_env_and_env_beats_the_file() {
    let file = "count: 4\nsub: { names: [bob] }\n";
    let env = [("DEMO_COUNT", "5"), ("DEMO_SUB_NAMES", "cid, dot")];
    let flags = || {
        Flags::default()
            .one("count", "--count", Some(&"6".to_owned()))
            .many("sub.names", "--name", &texts(&["eve", "fay"]))
    };
    let config = |env: &[_], flags| faults(&sources(file, env, flags)).unwrap();

    let of_file = config(&[], Flags::default());
    assert_eq!((of_file.count, of_file.names), (4, texts(&["bob"])));
    let of_env = config(&env, Flags::default());
    assert_eq!((of_env.count, of_env.names), (5, texts(&["cid", "dot"])));
    let of_flags = config(&env, flags());
    assert_eq!(
        (of_flags.count, of_flags.names),
        (6, texts(&["eve", "fay"]))
    );
    // An empty variable counts as not set.
    let empty = [("DEMO_COUNT", ""), ("DEMO_SUB_NAMES", "")];
    assert_eq!(config(&empty, Flags::default()).count, 4);
}

#[test]
fn each_fault_has_its_place_the_key_the_reason_and_the_remedy() {
    for line in [
        "count: many => f.yaml:1:8: count: \"many\" is a text; give a whole number",
        "count: '7' => f.yaml:1:8: count: \"7\" is a text; give a whole number",
        "count: 2.5 => f.yaml:1:8: count: \"2.5\" is not a whole number; give one from 0",
        "count: 2.0 => f.yaml:1:8: count: \"2.0\" is not a whole number; give one from 0",
        "count: -1 => f.yaml:1:8: count: \"-1\" is not a whole number; give one from 0",
        "count: 99999999999 => f.yaml:1:8: count: \"99999999999\" is too large; give at most 4294967295",
        "count: true => f.yaml:1:8: count: true is a boolean; give a whole number",
        "count: [1] => f.yaml:1:8: count: this is a list of 1; give a whole number",
        "count: { a: 1 } => f.yaml:1:8: count: this is a mapping; give a whole number",
        "count: !x 1 => f.yaml:1:8: count: this has the YAML tag \"x\"; give a whole number",
        "sub:\n  on: yes => f.yaml:2:7: sub.on: \"yes\" is a text; give true or false",
        "sub:\n  wait: 30 => f.yaml:2:9: sub.wait: 30 is a number; give a duration such as 500ms, 30s, 5m or 2h",
        "sub:\n  names: ann => f.yaml:2:10: sub.names: \"ann\" is a text; give a list: [a name in lower case]",
        "sub:\n  names:\n    - ann\n    - Bob => f.yaml:4:7: sub.names: \"Bob\" is not in lower case",
        "sub:\n  names: [ann, ~] => f.yaml:2:16: sub.names: nothing; give a name in lower case",
        "sub:\n  names: [ann, ann] => f.yaml:2:16: sub.names: \"ann\" is listed twice; drop one",
        "sub: 5 => f.yaml:1:6: sub: 5 is a number; give a mapping, such as `on: ...`",
        "[a] => f.yaml:1:1: this is a list of 1; give a mapping, such as `count: ...`",
        "cuont: 5 => f.yaml:1:1: cuont: is not a key; did you mean count?",
        "wait: 5s => f.yaml:1:1: wait: is not a key; did you mean sub.wait?",
        "sub: { onn: true } => f.yaml:1:8: sub.onn: is not a key; did you mean sub.on?",
        "sub: { else: true } => f.yaml:1:8: sub.else: is not a key; the keys here are on, wait, names",
        "1: 2 => f.yaml:1:1: 1 is a number; a key must be text",
        "count: 1\ncount: 2 => f.yaml:2:1: count: is given twice; drop one",
        "sub: { on: true }\nsub: { on: false } => f.yaml:2:1: sub: is given twice; drop one",
        "friends: { bob: { age: old } } => f.yaml:1:24: friends.bob.age: \"old\" is a text; give a whole number, 0 for no limit",
        "friends: { bob: {} } => f.yaml:1:17: friends.bob.age: is missing; give a whole number, 0 for no limit",
        "friends: { bob: { agee: 7, age: 7 } } => f.yaml:1:19: friends.bob.agee: is not a key; did you mean friends.bob.age?",
        "friends: { alexandra: { age: 7 } } => f.yaml:1:12: friends: \"alexandra\" is too long a name",
    ] {
        let (file, fault) = line.split_once(" => ").unwrap();
        assert_eq!(from_file(file), Err(vec![fault.to_owned()]), "{file}");
    }
}

#[test]
fn all_faults_of_all_sources_are_reported_at_once_in_order() {
    let file = "sub:\n  wait: soon\n  names: [ann, Bob, Cid]\ncuont: 1\ncount: x\n";
    let env = [
        ("DEMO_COUNT", "y"),
        ("DEMO_SUB_ONN", "true"),
        ("DEMO_SERVICE_HOST", "10.0.0.1"),
    ];
    let flags = Flags::default().many("sub.names", "--name", &texts(&["eve", "EVE"]));
    let faults = faults(&sources(file, &env, flags)).unwrap_err();
    assert_eq!(
        faults,
        [
            "f.yaml:2:9: sub.wait: \"soon\" is not a duration; write a number and a unit: 500ms, 30s, 5m or 2h",
            "f.yaml:3:16: sub.names: \"Bob\" is not in lower case",
            "f.yaml:3:21: sub.names: \"Cid\" is not in lower case",
            "f.yaml:4:1: cuont: is not a key; did you mean count?",
            "f.yaml:5:8: count: \"x\" is a text; give a whole number",
            "env DEMO_COUNT: \"y\" is not a whole number; give one from 0",
            "env DEMO_SUB_ONN: sets no key; did you mean DEMO_SUB_ON?",
            "--name: \"EVE\" is not in lower case",
        ]
    );
}

#[test]
fn a_file_that_is_no_configuration_is_reported_in_bounded_time_and_length() {
    let junk: String = (0..5_000).map(|n| format!("key{n}: 1\n")).collect();
    let faults = from_file(&junk).unwrap_err();
    assert_eq!(faults.len(), 65);
    assert_eq!(
        faults.last().unwrap(),
        "4936 more faults; is this the right file?"
    );
}

#[test]
fn what_is_shown_can_be_loaded_again_and_names_each_origin() {
    let file = "count: 4\nsub:\n  wait: 90s\nfriends:\n  bob: { age: 7 }\n";
    let env = [("DEMO_SUB_ON", "false")];
    let flags = Flags::default().many("sub.names", "--name", &texts(&["eve", "fay"]));
    let loaded = load(&PROGRAM, &sources(file, &env, flags), read).unwrap();
    let yaml = loaded.to_yaml();
    assert_eq!(
        yaml,
        "count: 4  # f.yaml:1:8\n\
         sub:\n\
         \x20 on: false  # env DEMO_SUB_ON\n\
         \x20 wait: \"1m 30s\"  # f.yaml:3:9\n\
         \x20 names: [\"eve\",\"fay\"]  # --name\n\
         admin:\n\
         \x20 listen:  # default\n\
         friends:\n\
         \x20 bob:\n\
         \x20   age: 7  # f.yaml:5:15\n"
    );
    assert_eq!(from_file(&yaml).unwrap(), loaded.config);
    let shown = loaded.shown();
    assert_eq!(
        serde_json::to_value(&shown[0]).unwrap(),
        json!({ "key": "count", "value": 4, "from": "f.yaml:1:8" })
    );
}

#[test]
fn the_schema_has_every_key_with_its_form_and_default_and_no_others() {
    let schema = schema(&PROGRAM, read).to_value();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(schema["additionalProperties"], json!(false));
    let count = &schema["properties"]["count"];
    assert_eq!(count["description"], "How many.");
    assert_eq!(count["default"], json!(3));
    assert_eq!(count["type"], json!(["integer", "null"]));
    let names = &schema["properties"]["sub"]["properties"]["names"];
    assert_eq!(names["type"], json!(["array", "null"]));
    assert_eq!(names["items"]["type"], json!("string"));
    assert_eq!(names["default"], json!(["ann"]));
    let friends = &schema["properties"]["friends"];
    assert_eq!(friends["description"], "Friends by name.");
    assert_eq!(friends["properties"], json!({}));
    assert_eq!(friends["additionalProperties"]["required"], json!(["age"]));
    assert_eq!(
        friends["additionalProperties"]["properties"]["age"]["type"],
        json!("integer")
    );
    assert_eq!(
        friends["additionalProperties"]["additionalProperties"],
        json!(false)
    );
}

proptest! {
    #[test]
    fn no_file_panics_and_each_fault_is_one_line_with_its_place(
        text in "(((count|sub|on|wait|names|friends|age|bob|x|\\PC{0,3}): ?([0-9x]{0,3}|\\[a, A\\]|\\{ ?age: 1\\}|))?\n( |  |)){0,8}"
    ) {
        if let Ok(document) = Document::parse(Path::new("f.yaml"), text) {
            let sources = Sources { file: Some(document), ..Sources::default() };
            match load(&PROGRAM, &sources, read) {
                Ok(loaded) => {
                    let again = from_file(&loaded.to_yaml());
                    prop_assert_eq!(again, Ok(loaded.config));
                }
                Err(faults) => for fault in faults.as_slice() {
                    let line = fault.to_string();
                    prop_assert!(line.starts_with("f.yaml:"), "{}", line);
                    prop_assert!(!line.contains('\n'), "{}", line);
                },
            }
        }
    }
}

fn house(reader: &mut Reader<'_>) -> Vec<(u32, Vec<String>)> {
    reader.sections("rooms", "The rooms.", |reader| {
        let size = reader.required("size", "How large.", &LIMIT);
        let who = reader.one_or_more("who", "Who.", &NAME);
        reader.must_be_given("who", NAME.expects);
        Some((size?, who))
    })
}

fn rooms(file: &str) -> Result<Vec<(u32, Vec<String>)>, Vec<String>> {
    load(&PROGRAM, &sources(file, &[], Flags::default()), house)
        .map(|loaded| loaded.config)
        .map_err(|faults| faults.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn a_list_of_sections_is_read_in_order_and_a_list_of_one_may_stand_alone() {
    let read = rooms("rooms:\n- { size: 3, who: ann }\n- { size: 1, who: [bob, cid] }\n");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        read,
        Ok(vec![(3, names(&["ann"])), (1, names(&["bob", "cid"]))])
    );
    assert_eq!(rooms("rooms: []"), Ok(vec![]));
    assert_eq!(rooms("rooms:"), Ok(vec![]));
}

#[test]
fn faults_in_a_list_of_sections_name_the_item_and_its_line() {
    let faults =
        rooms("rooms:\n- { size: x, who: ann }\n- { who: ANN, seize: 1 }\n- 3\n").unwrap_err();
    let all = faults.join("\n");
    for fault in [
        "f.yaml:2:11: rooms.0.size: ",
        "f.yaml:3:10: rooms.1.who: \"ANN\" is not in lower case",
        "rooms.1.seize: is not a key; did you mean rooms.1.size?",
        "rooms.1.size: is missing; give ",
        "rooms.2: 3 is a number; give a mapping",
    ] {
        assert!(all.contains(fault), "{fault}\n{all}");
    }
    let faults = rooms("rooms: { size: 1 }").unwrap_err();
    assert!(
        faults[0].contains("rooms: this is a mapping; give a list of mappings"),
        "{faults:?}"
    );
    let faults = rooms("rooms: [{ size: 1 }]").unwrap_err();
    assert!(
        faults[0].contains("rooms.0.who: is missing; give a name"),
        "{faults:?}"
    );
}

#[test]
fn the_schema_knows_lists_of_sections() {
    let schema = json!(schema(&PROGRAM, house));
    let rooms = &schema["properties"]["rooms"];
    assert_eq!(rooms["type"], json!(["array", "null"]));
    assert_eq!(rooms["items"]["required"], json!(["size", "who"]));
    assert_eq!(rooms["items"]["additionalProperties"], json!(false));
    assert_eq!(
        rooms["items"]["properties"]["who"]["anyOf"][1]["type"],
        json!("string")
    );
}
