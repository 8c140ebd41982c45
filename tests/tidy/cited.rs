//! Sections, steps and ids that comments cite, against the specifications in `docs/protocols`.
//!
//! A citation is the word for a section with numbers behind it: one, a list with commas and an
//! "and", or a range with a "to"; behind them steps of a numbered list. Before it stands whose
//! section it is: a protocol, or an RFC, whose sections are not looked up. A citation without that
//! is about the protocol of the file: the one that its path names, else the only one that its
//! module documentation cites sections of. The same holds for ids of vectors and weaknesses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::Source;

pub const FOLDER: &str = "docs/protocols";
/// As citations spell them; the names of the files are in lower case.
const PROTOCOLS: [&str; 4] = ["netsvr", "xxim", "connmix", "IM"];
/// Words that may stand between a protocol and the word for its section or an id of it.
const BETWEEN: [&str; 6] =
    ["the", "specification", "specification's", "vector", "vectors", "weakness"];

/// What can be cited of one specification.
#[derive(Default)]
pub struct Specification {
    /// Section, and the last step of a numbered list in it; 0: there is none.
    sections: BTreeMap<String, usize>,
    ids: BTreeSet<String>,
}

impl Specification {
    pub fn new(text: &str) -> Specification {
        let mut found = Specification::default();
        let mut section = String::new();
        let mut fenced = false;
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if let Some(title) = line.strip_prefix('#').filter(|_| !fenced) {
                let title = title.trim_start_matches('#').trim_start();
                let number = first_word(title).trim_end_matches('.');
                if is_number(number) {
                    section = number.to_owned();
                    found.sections.insert(section.clone(), 0);
                }
                found.define(title);
            } else if fenced {
                found.define(line);
            } else if let Some((step, _)) = line.split_once(". ")
                && let (Ok(step), Some(last)) = (step.parse(), found.sections.get_mut(&section))
            {
                *last = step;
            }
            if !fenced {
                line.strip_prefix("| ").into_iter().for_each(|cell| found.define(cell));
                line.split("**").skip(1).step_by(2).for_each(|bold| found.define(bold));
            }
        }
        found
    }

    /// Notes the id with which a text begins, if it does.
    fn define(&mut self, text: &str) {
        let word = first_word(text).trim_end_matches('.');
        if is_id(word) {
            self.ids.insert(word.to_owned());
        }
    }
}

/// The specifications by protocol.
pub type Specifications = BTreeMap<&'static str, Specification>;

pub fn read(root: &Path) -> Specifications {
    let one = |name: &'static str| {
        let path = root.join(FOLDER).join(format!("{}.md", name.to_lowercase()));
        let text = std::fs::read_to_string(&path);
        (name, Specification::new(&text.unwrap_or_else(|e| panic!("{}: {e}", path.display()))))
    };
    PROTOCOLS.map(one).into()
}

/// Citations in the comments of a file that lead nowhere, or do not say where they lead.
pub fn comments(source: &Source, all: &Specifications) -> Vec<String> {
    let words = comment_words(source);
    let own = owner(source, &words);
    problems(&words, &own, all).into_iter().map(|(line, text)| source.at(line, &text)).collect()
}

/// The same for the text of a specification, which cites itself.
pub fn specification(name: &str, path: &str, text: &str, all: &Specifications) -> Vec<String> {
    let mut fenced = false;
    let mut words = Words::default();
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.starts_with("```");
        if !fenced {
            words.add(index, line);
        }
        // Cells of a table are no sentence.
        if line.is_empty() || line.starts_with('|') {
            words.end();
        }
    }
    let found = problems(&words, &Owner(Ok(name.to_owned())), all);
    found.into_iter().map(|(line, text)| format!("{path}:{}: {text}", line + 1)).collect()
}

/// Whose sections are meant where nothing is said; or why that is not clear.
struct Owner(Result<String, String>);

impl Owner {
    /// The document that is named, else this one.
    fn or(&self, named: Option<String>) -> Result<String, &str> {
        match (named, &self.0) {
            (Some(name), _) => Ok(name),
            (None, Ok(name)) => Ok(name.clone()),
            (None, Err(why)) => Err(why),
        }
    }
}

fn owner(source: &Source, words: &Words) -> Owner {
    let pieces = || source.path.split(['/', '_', '.']);
    let in_path = |name: &&&str| pieces().any(|piece| piece == name.to_lowercase());
    let by_path: BTreeSet<String> =
        PROTOCOLS.iter().filter(in_path).map(|name| (*name).to_owned()).collect();
    let top = source.lines.iter().take_while(|line| line.starts_with("//!")).count();
    let cited = (0..words.list.len()).filter(|at| words.line(*at) < top);
    let mut by_doc: BTreeSet<String> =
        cited.filter_map(|at| Citation::at(words, at)?.document).collect();
    if !by_path.is_empty() {
        // RFCs are always named; what else the documentation names competes with the path.
        by_doc.retain(|name| !name.starts_with("RFC"));
    }
    let mut both: Vec<String> = by_path.union(&by_doc).cloned().collect();
    Owner(match both.len() {
        1 => Ok(both.remove(0)),
        0 => Err("neither the path nor the `//!` of the file names one".to_owned()),
        _ => Err(format!("the path and the `//!` of the file name {}", both.join(", "))),
    })
}

/// What is wrong with the citations among these words, by line.
fn problems(words: &Words, own: &Owner, all: &Specifications) -> Vec<(usize, String)> {
    let letter = |id: &str| id.chars().next();
    let letters: BTreeSet<_> = all.values().flat_map(|one| &one.ids).map(|id| letter(id)).collect();
    let mut found = Vec::new();
    let mut cited = None;
    for at in 0..words.list.len() {
        if words.starts(at) {
            cited = None;
        }
        let mut complain = |text: String| found.push((words.line(at), text));
        if let Some(citation) = Citation::at(words, at) {
            match own.or(citation.document.clone()) {
                Ok(name) => citation.check(&name, all).into_iter().for_each(&mut complain),
                Err(why) => complain(unclear(&format!("section {}", citation.sections[0]), why)),
            }
            cited = citation.document.or(cited);
        }
        let id = bare(&words.list[at].1);
        // In code it is the name of something else.
        let quoted = words.list[at].1.starts_with('`');
        if is_id(id) && !quoted && letters.contains(&letter(id)) {
            match own.or(words.document_before(at).or(cited.clone())) {
                Ok(name) if all.get(&*name).is_none_or(|one| one.ids.contains(id)) => {}
                Ok(name) => complain(gone(id, &name)),
                Err(why) => complain(unclear(id, why)),
            }
        }
    }
    found
}

fn gone(what: &str, name: &str) -> String {
    format!("{FOLDER} has no {what} of {name}; correct it")
}

fn unclear(what: &str, why: &str) -> String {
    format!("whose {what} this is, is not clear: {why}; write for example `netsvr {what}`")
}

/// Words of comments, each with its line, in runs that belong together.
#[derive(Default)]
struct Words {
    list: Vec<(usize, String)>,
    /// Where a new run begins.
    starts: BTreeSet<usize>,
}

impl Words {
    fn add(&mut self, line: usize, text: &str) {
        self.list.extend(text.split_whitespace().map(|word| (line, word.to_owned())));
    }

    /// What follows does not go on from here.
    fn end(&mut self) {
        self.starts.insert(self.list.len());
    }

    fn starts(&self, at: usize) -> bool {
        at == 0 || self.starts.contains(&at)
    }

    fn line(&self, at: usize) -> usize {
        self.list[at].0
    }

    /// The word at a place, if it belongs to the run of the word before it.
    fn next(&self, at: usize) -> Option<&str> {
        self.list.get(at).filter(|_| !self.starts(at)).map(|(_, word)| word.as_str())
    }

    /// The document whose name stands right before a word.
    fn document_before(&self, at: usize) -> Option<String> {
        let mut at = at;
        loop {
            if self.starts(at) {
                return None;
            }
            at -= 1;
            let word = self.list[at].1.trim_start_matches(['(', '`', '*']);
            if BETWEEN.contains(&word.to_lowercase().as_str()) {
                continue;
            }
            let name = word.strip_suffix("'s").unwrap_or(word);
            if is_digits(name) && !self.starts(at) {
                let before = self.list[at - 1].1.trim_start_matches('(');
                return (before == "RFC").then(|| format!("RFC {name}"));
            }
            return PROTOCOLS.contains(&name).then(|| name.to_owned());
        }
    }
}

fn comment_words(source: &Source) -> Words {
    let mut words = Words::default();
    let mut whole_before = false;
    for (index, (line, code)) in source.lines.iter().zip(&source.code).enumerate() {
        // Behind the last code of a line: columns are characters there and here.
        let column = code.trim_end().chars().count();
        let rest: String = line.chars().skip(column).collect();
        let Some(comment) = rest.trim_start().strip_prefix("//") else {
            whole_before = false;
            continue;
        };
        let whole = column == 0;
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        if !(whole && whole_before) || comment.is_empty() {
            words.end();
        }
        words.add(index, comment);
        whole_before = whole;
    }
    words
}

/// Sections of one document, and the steps of the last of them.
struct Citation {
    document: Option<String>,
    sections: Vec<String>,
    steps: Vec<String>,
}

impl Citation {
    /// The citation that begins at a word, if one does.
    fn at(words: &Words, at: usize) -> Option<Citation> {
        let word = words.list[at].1.trim_start_matches('(').to_lowercase();
        if !["section", "sections"].contains(&word.as_str()) {
            return None;
        }
        let mut next = at + 1;
        let sections = numbers(words, &mut next, is_number);
        let goes_on = !sections.is_empty() && words.list[next - 1].1.ends_with(',');
        let mut steps = Vec::new();
        if goes_on && words.next(next).is_some_and(|word| ["step", "steps"].contains(&word)) {
            next += 1;
            steps = numbers(words, &mut next, is_digits);
        }
        let document = words.document_before(at);
        (!sections.is_empty()).then_some(Citation { document, sections, steps })
    }

    /// What of it there is not.
    fn check(&self, name: &str, all: &Specifications) -> Vec<String> {
        let Some(document) = all.get(name) else { return Vec::new() };
        let is_gone = |number: &&String| !document.sections.contains_key(*number);
        let sections = self.sections.iter().filter(is_gone).map(|n| format!("section {n}"));
        let of = self.sections.last().map_or("", String::as_str);
        let last = document.sections.get(of).copied().unwrap_or(usize::MAX);
        let is_beyond = |step: &&String| !(1..=last).contains(&step.parse().unwrap_or(0));
        let steps =
            self.steps.iter().filter(is_beyond).map(|n| format!("step {n} in section {of}"));
        sections.chain(steps).map(|what| gone(&what, name)).collect()
    }
}

/// A list of numbers: with commas, "and" and "to".
fn numbers(words: &Words, next: &mut usize, good: fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let joined = words.next(*next).is_some_and(|word| ["and", "to", "or"].contains(&word));
        let joined = usize::from(joined && !found.is_empty());
        let Some(word) = words.next(*next + joined) else { return found };
        let number = bare(word);
        if !good(number) {
            return found;
        }
        found.push(number.to_owned());
        *next += joined + 1;
        let more = words.next(*next).is_some_and(|next| ["and", "to", "or"].contains(&next));
        let ends = word.ends_with(number) && !more;
        if ends || !(word.ends_with(number) || word.ends_with([',', '`'])) {
            return found;
        }
    }
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `2`, `2.10`, `5.5.3`
fn is_number(text: &str) -> bool {
    text.split('.').all(is_digits)
}

/// A capital, one or two digits, and perhaps a small letter with digits.
fn is_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(|c: char| c.is_ascii_uppercase()) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let after = &rest[digits..];
    let suffix = after.strip_prefix(|c: char| c.is_ascii_lowercase());
    (1..=2).contains(&digits)
        && (after.is_empty() || suffix.is_some_and(|more| more.is_empty() || is_digits(more)))
}

#[test]
fn citations_that_lead_nowhere_are_found() {
    let netsvr = "# n\n## 2. A\n### 2.1 B\n1. a\n2. b\n### 2.2 C\n| W1 | a |\n**V2g** x; **V3**\n";
    let im = "## 1. A\n```\n## 9. no\nW7  a\n```\n### E4 a\n";
    let empty = Specification::default;
    let all: Specifications = [
        ("netsvr", Specification::new(netsvr)),
        ("IM", Specification::new(im)),
        ("xxim", empty()),
        ("connmix", empty()),
    ]
    .into();
    let samples: &[(&str, &str, &[usize])] = &[
        ("src/a.rs", "// netsvr section 2.2\n// netsvr section 3\n", &[2]),
        ("src/a.rs", "fn a() {} // netsvr sections 2.1,\nfn b() {}\n// 7 and 8\n", &[]),
        (
            "src/a.rs",
            "// netsvr sections 2.1, 2.2 and\n// 4; IM section 1, IM section 2.\n",
            &[1, 2],
        ),
        ("src/a.rs", "/// (netsvr specification's sections 2.1 to 2.3).\n", &[1]),
        (
            "src/a.rs",
            "/// netsvr section 2.1, step 2\n/// netsvr section 2.1, steps 2 to 3\n",
            &[2],
        ),
        ("src/a.rs", "// netsvr section 2.2, step 1\n", &[1]),
        ("src/a.rs", "// RFC 6455 section 5.5.3, and the section of RFC 1 section 77.\n", &[]),
        ("src/a.rs", "let a = \"netsvr section 3\";\n", &[]),
        ("src/a.rs", "// section 2.1\n", &[1]),
        ("src/a.rs", "//! A (netsvr section 2).\n\n// Section 2.1\n// Section 3.\n", &[4]),
        ("src/a.rs", "//! A (netsvr section 2, IM section 1).\n\n// section 2.1\n", &[3]),
        ("src/a.rs", "//! A (netsvr section 2, RFC 1 section 1).\n// section 2.1\n", &[2]),
        ("src/a.rs", "//! A (RFC 9112 section 2).\n\n// section 77\n", &[]),
        ("src/im/a.rs", "//! A (RFC 9112 section 2).\n\n// section 1\n// section 77\n", &[4]),
        ("src/im.rs", "//! A (netsvr section 2).\n\n// section 1\n", &[3]),
        ("tests/im_a.rs", "//! A (section 1).\n\n// sections 1 and 2\n", &[3]),
        ("src/dim/a.rs", "// section 1\n", &[1]),
        ("proto/im.proto", "// sections 1 and 2\n", &[1]),
        (
            "src/netsvr/a.rs",
            "// (W1, V2g to V3) and V4, W2.\n// netsvr vector V2g, IM E4\n",
            &[1, 1],
        ),
        ("src/a.rs", "// netsvr section 2, V3.\n\n// Like netsvr W1.\n\n// W1, G5\n", &[5]),
        ("src/im/a.rs", "// W7 E4 `E9`\n// E5\n", &[2]),
    ];
    for (path, text, expected) in samples {
        let found = comments(&Source::new(path, text), &all);
        assert_eq!(super::lines_of(&found), *expected, "{path}: {text}: {found:?}");
    }
    let text = "## 1. A\nSee section 1, or\nsection 2.\n```\nsection 3\n```\n| section 1, | 8 |\n";
    assert_eq!(super::lines_of(&specification("IM", "a.md", text, &all)), [3]);
}
