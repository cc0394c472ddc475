//! What has to hold in a manifest beyond its schema.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::{
    config::{self, Config},
    container::{Container, Pod, Program, Volume, pods},
    find, list, memory, named, selects, text, title,
};
use crate::bins::Bins;

/// Time that a relay needs to close its connections after the drain, in seconds.
const CLOSING: u64 = 5;

/// Everything that is wrong with the pods of `manifests` and with what belongs to them, one line each: the command lines and
/// configurations as the binaries judge them, and what they need from volumes, ports and the security context.
pub fn faults(manifests: &[Value], bins: &Bins) -> Vec<String> {
    let mut faults = Vec::new();
    for manifest in manifests {
        let pods = pods(manifest);
        let mut ranges: Vec<(String, RangeInclusive<u64>)> = Vec::new();
        for pod in &pods {
            for container in pod.containers() {
                let mut found = shape(&container);
                match config::load(&container, manifests, bins) {
                    Ok(config) => {
                        // A dial asks the node that runs beside it, or is a node for a moment.
                        if container.args().first() == Some(&"run") {
                            found.extend(needs(&container, &config));
                            found.extend(memory::too_little(&container, &config));
                            found.extend(public_admin(pod, &config));
                            let is_own = container.args().contains(&"--port-range");
                            let range =
                                range(&config).filter(|_| !is_own && !pod.has_host_network());
                            ranges.extend(range.map(|range| (pod.name.clone(), range)));
                        }
                    }
                    Err(more) => found.extend(more),
                }
                let place = format!("{}, container {}", pod.name, text(container.spec, "/name"));
                faults.extend(found.iter().map(|fault| format!("{place}: {fault}")));
            }
            if pod.containers().next().is_some() {
                let found = confined(pod).into_iter();
                faults.extend(found.map(|fault| format!("{}: {fault}", pod.title)));
            }
        }
        faults.extend(overlaps(&ranges));
        faults.extend(references(manifest, manifests));
    }
    faults.sort();
    faults.dedup();
    faults
}

fn range(config: &Config) -> Option<RangeInclusive<u64>> {
    let (first, last) = config.get("dial.port_range")?.as_str()?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let each = config.get("dial.ports_per_ordinal")?.as_u64()?;
    if each == 0 {
        return Some(first..=last);
    }
    let first = first + each * config.get("dial.ordinal")?.as_u64()?;
    Some(first..=first + each - 1)
}

/// Pods behind one NAT that would use the same ports.
fn overlaps(ranges: &[(String, RangeInclusive<u64>)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, (pod, range)) in ranges.iter().enumerate() {
        for (other, its) in &ranges[index + 1..] {
            if range.start() <= its.end() && its.start() <= range.end() {
                let (first, last) = (range.start().max(its.start()), range.end().min(its.end()));
                faults.push(format!(
                    "{pod} and {other}: both have the source ports {first}-{last} and are behind one NAT; set dial.ports_per_ordinal"
                ));
            }
        }
    }
    faults
}

fn shape(container: &Container<'_>) -> Vec<String> {
    let mut faults: Vec<_> = container
        .dangling_mounts()
        .map(|name| format!("mounts {name}, and the pod has no such volume"))
        .collect();
    let spec = container.spec;
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(port) = spec.pointer(&format!("/{probe}/httpGet/port")) {
            let known = port
                .as_str()
                .is_some_and(|port| named(list(spec, "/ports"), port).is_some());
            if !known {
                faults.push(format!(
                    "{probe} asks port {port}, which no port of the container is named"
                ));
            }
        }
    }
    let context = &spec["securityContext"];
    faults.extend(settings(
        context,
        "/allowPrivilegeEscalation",
        &json!(false),
    ));
    faults.extend(settings(context, "/readOnlyRootFilesystem", &json!(true)));
    faults.extend(settings(context, "/capabilities/drop", &json!(["ALL"])));
    let added = list(context, "/capabilities/add");
    let is_keeper = container.pod.is_keeper();
    let is_wrong = if is_keeper {
        added != [json!("NET_ADMIN")]
    } else {
        added
            .iter()
            .any(|capability| capability != "NET_BIND_SERVICE")
    };
    if is_wrong {
        faults.push(format!(
            "securityContext.capabilities.add is {}",
            json!(added)
        ));
    }
    faults
}

fn settings(context: &Value, at: &str, value: &Value) -> Option<String> {
    let is = context.pointer(at).unwrap_or(&Value::Null);
    let key = at[1..].replace('/', ".");
    (is != value).then(|| format!("securityContext.{key} is {is}, and is to be {value}"))
}

fn confined(pod: &Pod<'_>) -> Vec<String> {
    let context = &pod.spec["securityContext"];
    let wanted = if pod.is_keeper() {
        // Runtimes give an added capability to root alone.
        [
            ("/runAsUser", json!(0)),
            ("/runAsNonRoot", Value::Null),
            ("/fsGroup", Value::Null),
        ]
    } else {
        let user = json!(super::IMAGE_USER);
        [
            ("/runAsUser", user.clone()),
            ("/runAsNonRoot", json!(true)),
            ("/fsGroup", user),
        ]
    };
    let seccomp = ("/seccompProfile", json!({ "type": "RuntimeDefault" }));
    let wanted = wanted.into_iter().chain([seccomp]);
    let wrong = wanted.filter_map(|(at, value)| settings(context, at, &value));
    let mut faults: Vec<_> = wrong.collect();
    if pod.is_keeper() {
        let mut volumes = list(pod.spec, "/volumes").iter();
        if volumes.any(|volume| volume.get("configMap").is_none()) {
            faults.push(
                "a pod that keeps a rule needs its configuration and no other volume".to_owned(),
            );
        }
        faults.extend((!pod.has_host_network()).then(|| {
            "a pod that keeps a rule is to have hostNetwork: the rule is its node's".to_owned()
        }));
        let more = ["hostPID", "hostIPC"].into_iter();
        faults.extend(
            more.filter(|key| pod.spec[*key] == true)
                .map(|key| format!("{key} is true")),
        );
    }
    if pod.spec["automountServiceAccountToken"] != false {
        faults.push("automountServiceAccountToken is to be false".to_owned());
    }
    if pod.has_host_network()
        && context
            .get("sysctls")
            .is_some_and(|sysctls| !sysctls.is_null())
    {
        faults.push("securityContext.sysctls: a pod with hostNetwork may set none".to_owned());
    }
    faults
}

/// The admin server of a pod that has its node's addresses, which may be public.
fn public_admin(pod: &Pod<'_>, config: &Config) -> Option<String> {
    let listen = config.get("admin.listen")?.as_str()?;
    let listen: std::net::SocketAddr = listen.parse().ok()?;
    (pod.has_host_network() && !listen.ip().is_loopback()).then(|| {
        format!("admin.listen {listen}: with hostNetwork it is to be on loopback, as the node's addresses may be public")
    })
}

fn needs(container: &Container<'_>, config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let value = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let key_file = value("identity.key_file");
    if container.mount(key_file).is_none() {
        faults.push(format!(
            "identity.key_file {key_file} is on no volume: the identity would be lost, and the root file system is read-only"
        ));
    }
    for key in ["join.token_file", "access.revoked_file"] {
        let file = value(key);
        // A directory of a volume changes with what it is made from, and the file is read again then; a single file does not.
        if !file.is_empty()
            && container
                .mount(file)
                .is_none_or(|(_, rest)| rest.is_empty())
        {
            faults.push(format!(
                "{key} {file} is in no directory of a volume: it would not be there, or not change"
            ));
        }
    }
    let socket = value("control.socket");
    if !socket.is_empty() && !matches!(container.mount(socket), Some((Volume::Writable, _))) {
        faults.push(format!(
            "control.socket {socket} is on no volume that can be written"
        ));
    }
    let ports = list(container.spec, "/ports");
    let has_port = |port: u64, protocol: &str| {
        ports.iter().any(|declared| {
            let its = declared["protocol"].as_str().unwrap_or("TCP");
            declared["containerPort"] == port && its == protocol
        })
    };
    let admin = value("admin.listen").rsplit(':').next().unwrap_or_default();
    let declared = named(ports, "admin").map(|port| port["containerPort"].to_string());
    if declared.is_some() && declared.as_deref() != Some(admin) {
        faults.push(format!(
            "admin.listen has port {admin}, and the port named admin is {}",
            declared.unwrap_or_default()
        ));
    }
    for addr in config
        .get("listen")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let parts: Vec<_> = addr.as_str().unwrap_or_default().split('/').collect();
        let [_, _, _, protocol, port, ..] = parts[..] else {
            continue;
        };
        if !port
            .parse()
            .is_ok_and(|port| has_port(port, &protocol.to_uppercase()))
        {
            faults.push(format!(
                "listen {addr}: the container declares no {} port {port}",
                protocol.to_uppercase()
            ));
        }
    }
    let reserved = list(container.pod.spec, "/securityContext/sysctls");
    if let Some(reserved) = named(reserved, "net.ipv4.ip_local_reserved_ports")
        && reserved["value"] != value("dial.port_range")
    {
        faults.push(format!(
            "net.ipv4.ip_local_reserved_ports is {} and dial.port_range {}",
            reserved["value"],
            value("dial.port_range")
        ));
    }
    if container.program == Program::RelayNode {
        let drain = seconds(value("drain.timeout"));
        let grace = container.pod.spec["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(30);
        if drain.is_none_or(|drain| grace < drain + CLOSING) {
            faults.push(format!(
                "terminationGracePeriodSeconds is {grace}: the relay drains for {} and needs {CLOSING} s more",
                value("drain.timeout")
            ));
        }
        if list(&config.get("external").cloned().unwrap_or_default(), "").is_empty() {
            faults.push(
                "external is empty: in a pod the relay knows no address at which peers reach it"
                    .to_owned(),
            );
        }
    }
    faults
}

/// A duration of whole seconds or minutes, as `config show` prints it.
fn seconds(text: &str) -> Option<u64> {
    text.split(' ').try_fold(0, |sum, part| {
        let digits = part.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let factor = match &part[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        Some(sum + digits.parse::<u64>().ok()? * factor)
    })
}

/// What a manifest says about others: Services and what scrapes them, policies and budgets, find their pods and ports.
fn references(manifest: &Value, manifests: &[Value]) -> Vec<String> {
    let all: Vec<_> = manifests.iter().flat_map(pods).collect();
    let selected = |selector: &Value| {
        let selector = selector.clone();
        let mut pods = all.iter();
        pods.find(move |pod| selects(&selector, &pod.metadata["labels"]))
    };
    let mut faults = Vec::new();
    let mut fault = |problem: String| faults.push(format!("{}: {problem}", title(manifest)));
    match text(manifest, "/kind") {
        "Service" if manifest["spec"]["type"] == "ExternalName" => {
            let external = text(manifest, "/spec/externalName");
            let service = external.split('.').next().unwrap_or_default();
            if find(manifests, "Service", service).is_none() {
                fault(format!(
                    "externalName {external}: there is no Service {service}"
                ));
            }
        }
        "Service" => {
            let Some(pod) = selected(&manifest["spec"]["selector"]) else {
                fault("its selector selects no pod".to_owned());
                return faults;
            };
            let declared: Vec<_> = pod
                .containers()
                .flat_map(|container| list(container.spec, "/ports").to_vec())
                .collect();
            for port in list(manifest, "/spec/ports") {
                let target = text(port, "/targetPort");
                if named(&declared, target).is_none() {
                    fault(format!(
                        "targetPort {target}: no container has a port of this name"
                    ));
                }
            }
            if manifest["spec"]["type"] == "LoadBalancer"
                && manifest["spec"]["externalTrafficPolicy"] != "Local"
            {
                fault("externalTrafficPolicy is to be Local, else the relay sees nodes instead of peers".to_owned());
            }
        }
        "PodDisruptionBudget"
            if selected(&manifest["spec"]["selector"]["matchLabels"]).is_none() =>
        {
            fault("its selector selects no pod".to_owned());
        }
        "NetworkPolicy" if selected(&manifest["spec"]["podSelector"]["matchLabels"]).is_none() => {
            fault("its selector selects no pod".to_owned());
        }
        "ServiceMonitor" => {
            let selector = &manifest["spec"]["selector"]["matchLabels"];
            for endpoint in list(manifest, "/spec/endpoints") {
                let port = text(endpoint, "/port");
                let found = manifests.iter().any(|service| {
                    service["kind"] == "Service"
                        && selects(selector, &service["metadata"]["labels"])
                        && named(list(service, "/spec/ports"), port).is_some()
                });
                if !found {
                    fault(format!("selects no Service with a port {port}"));
                }
            }
        }
        _ => {}
    }
    faults
}
