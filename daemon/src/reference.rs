//! Pages of `docs/reference/` that tests keep current: a test makes the page from the code and compares.
//!
//! With `P2PNODE_DOCS=write` the test writes the page instead. `cargo xtask docs --write` does that for all of them.

use std::{fs, path::Path};

/// The lines of a page that differ from what the code has, or nothing. `page` is a path in the repository.
///
/// # Errors
/// If the page cannot be read or written.
pub fn stale(page: &str, current: &str) -> std::io::Result<Option<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    if std::env::var_os("P2PNODE_DOCS").is_some_and(|mode| mode == "write") {
        fs::write(path, current)?;
        return Ok(None);
    }
    let written = fs::read_to_string(path)?;
    let differs = written
        .lines()
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(current.lines().map(Some).chain(std::iter::repeat(None)))
        .take_while(|(written, current)| written.is_some() || current.is_some())
        .find(|(written, current)| written != current);
    Ok(differs.map(|(written, current)| {
        format!(
            "{page} is not current; `cargo xtask docs --write` writes it\nwritten: {}\ncode:    {}",
            written.unwrap_or("(end)"),
            current.unwrap_or("(end)")
        )
    }))
}

/// The page of a program's metrics, from an exposition in which every family has a series for each value of its labels.
///
/// `values` gives the words for labels whose values are not constants of the program.
#[must_use]
pub fn metrics(program: &str, exposition: &str, values: &[(&str, &str)]) -> String {
    let mut page = format!(
        "# Metrics of `{program}`\n\n<!-- Made by `cargo xtask docs --write`; a test compares it with the code. -->\n\n\
         With `admin.listen` set, `/metrics` serves these in [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/).\n\
         A family of which nothing was counted yet is not in the answer.\n\
         [Troubleshooting](../troubleshooting.md) explains the values of `reason` and `outcome`.\n"
    );
    for family in exposition.split("# HELP ").skip(1) {
        let mut lines = family.lines();
        let (name, help) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .unwrap_or_default();
        let after = |mark: &str| {
            let line = family.lines().find_map(|line| line.strip_prefix(mark));
            line.and_then(|line| line.rsplit(' ').next())
        };
        let kind = after("# TYPE ").unwrap_or("unknown");
        let shown = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        let help = help.trim_end_matches('.');
        page += &format!("\n## `{shown}`\n\n{help}.\n\n- Type: {kind}\n");
        if let Some(unit) = after("# UNIT ") {
            page += &format!("- Unit: {unit}\n");
        }
        for (label, seen) in labels(family) {
            let words = values.iter().find(|(known, _)| *known == label);
            let words = words.map_or_else(|| seen.join(", "), |(_, words)| (*words).to_owned());
            page += &format!("- Label `{label}`: {words}\n");
        }
    }
    page
}

/// The labels of the samples, in their order, each with its values in the order in which they come.
fn labels(family: &str) -> Vec<(&str, Vec<String>)> {
    let mut labels: Vec<(&str, Vec<String>)> = Vec::new();
    let samples = family.lines().filter(|line| !line.starts_with('#'));
    let sets = samples.filter_map(|line| Some(line.split_once('{')?.1.split_once('}')?.0));
    for pair in sets.flat_map(|set| set.split(',')) {
        let Some((label, value)) = pair.split_once('=').filter(|(label, _)| *label != "le") else {
            continue;
        };
        let value = format!("`{}`", value.trim_matches('"'));
        match labels.iter_mut().find(|(known, _)| *known == label) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => labels.push((label, vec![value])),
        }
    }
    for (_, values) in &mut labels {
        values.sort();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_type_unit_and_labels_of_each_family() {
        let text = "# HELP x Things.\n# TYPE x counter\nx_total{a=\"2\",of=\"p\"} 1\nx_total{a=\"1\",of=\"q\"} 1\n\
            # HELP y_seconds Times.\n# TYPE y_seconds histogram\n# UNIT y_seconds seconds\ny_seconds_bucket{le=\"1\"} 0\n# EOF\n";
        let page = metrics("demo", text, &[("of", "a name")]);
        assert!(page.contains("## `x_total`\n\nThings.\n\n- Type: counter\n- Label `a`: `1`, `2`\n- Label `of`: a name\n"), "{page}");
        assert!(
            page.ends_with("## `y_seconds`\n\nTimes.\n\n- Type: histogram\n- Unit: seconds\n"),
            "{page}"
        );
    }
}
