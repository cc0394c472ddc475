//! The configuration of a container, judged by the program that will run with it.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::Value;

use super::{
    IMAGE_ENV,
    container::{Container, Volume},
    find, text,
};
use crate::bins::Bins;

pub(super) type Config = BTreeMap<String, Value>;

/// The configuration of `container`, or everything that is wrong with it and its command line.
pub(super) fn load(
    container: &Container<'_>,
    manifests: &[Value],
    bins: &Bins,
) -> Result<Config, Vec<String>> {
    let one = |fault: String| vec![fault];
    let mut environment = container.environment().map_err(one)?;
    // Lives as long as the programs that read it.
    let directory = tempfile::tempdir().map_err(|error| one(error.to_string()))?;
    // Files that variables name, the configuration among them, are read where they lie here.
    let mut moved = BTreeMap::new();
    for (variable, value) in &mut environment {
        let is_config = *variable == container.program.config_variable();
        let is_mounted = matches!(container.mount(value), Some((Volume::ConfigMap(_), _)));
        if is_config || is_mounted {
            let content = content(container, manifests, variable, value).map_err(one)?;
            let name = value.rsplit('/').next().unwrap_or("file");
            let here = directory.path().join(name).display().to_string();
            fs::write(&here, content).map_err(|error| one(format!("{here}: {error}")))?;
            moved.insert(here.clone(), std::mem::replace(value, here));
        }
    }
    let run = |args: &[&str]| {
        let mut program = Command::new(container.program.binary(bins));
        program
            .args(args)
            .env_clear()
            .envs(IMAGE_ENV)
            .envs(&environment);
        let output = program.output();
        let failed = |error| one(format!("{}: {error}", container.program.name()));
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let told = String::from_utf8_lossy(&output.stderr)
            .replace(&format!("{}/", directory.path().display()), "");
        let told = told
            .lines()
            .map(|line| line.trim_start_matches("error: ").to_owned());
        Err(told.collect::<Vec<_>>())
    };
    // Arguments are read from left to right: help is printed only if all before it are right.
    let mut line = container.args();
    line.push("--help");
    let mut faults = run(&line).err().unwrap_or_default();
    for command in commands(container) {
        let (program, args) = command.split_first().unwrap_or((&"", &[]));
        if *program != container.program.name() {
            faults.push(format!(
                "a probe runs {program:?}, which the image does not have"
            ));
            continue;
        }
        let mut line = args.to_vec();
        line.push("--help");
        faults.extend(run(&line).err().unwrap_or_default());
    }
    let shown = match run(&["config", "show", "--json"]) {
        Ok(shown) if faults.is_empty() => shown,
        Ok(_) => return Err(faults),
        Err(more) => {
            faults.extend(more);
            return Err(faults);
        }
    };
    let keys = shown.lines().filter_map(|line| {
        let key: Value = serde_json::from_str(line).ok()?;
        let there = moved
            .get(text(&key, "/value"))
            .map(|path| path.as_str().into());
        let value = there.unwrap_or_else(|| key["value"].clone());
        Some((text(&key, "/key").to_owned(), value))
    });
    let keys: Config = keys.collect();
    // The program needs the number only where it runs.
    let is_shared = keys
        .get("dial.ports_per_ordinal")
        .is_some_and(|ports| *ports != 0);
    let is_firewall = container.args().first() == Some(&"firewall");
    if is_shared && !is_firewall && keys.get("dial.ordinal").is_none_or(Value::is_null) {
        return Err(one("dial.ordinal is not set".to_owned()));
    }
    Ok(keys)
}

fn content<'a>(
    container: &Container<'_>,
    manifests: &'a [Value],
    variable: &str,
    path: &str,
) -> Result<&'a str, String> {
    let Some((Volume::ConfigMap(name), file)) = container.mount(path) else {
        return Err(format!("env {variable}: no ConfigMap is mounted at {path}"));
    };
    let map = find(manifests, "ConfigMap", name)
        .ok_or_else(|| format!("env {variable}: there is no ConfigMap {name}"))?;
    map["data"][file]
        .as_str()
        .ok_or_else(|| format!("env {variable}: ConfigMap {name} has no {file}"))
}

fn commands<'a>(container: &Container<'a>) -> Vec<Vec<&'a str>> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
    let spec = container.spec;
    let commands = probes
        .iter()
        .map(|probe| super::list(spec, &format!("/{probe}/exec/command")));
    commands
        .filter(|command| !command.is_empty())
        .map(|command| command.iter().filter_map(Value::as_str).collect())
        .collect()
}
