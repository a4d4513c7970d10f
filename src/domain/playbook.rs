//! Playbooks: what to do about incidents of a kind. Which incident has which is decided in the database, for any writer.

use serde::{Deserialize, Serialize};

use super::incident::{IncidentKind, Severity};
use super::input::{self, InvalidInput, limits};
use super::{PlaybookId, Timestamp};

/// A playbook as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Playbook {
    pub id: PlaybookId,
    pub name: String,
    pub description: String,
    pub enabled: bool,
    pub severities: Vec<Severity>,
    pub kinds: Vec<IncidentKind>,
    pub sources: Vec<String>,
    pub steps: Vec<PlaybookStep>,
    pub created_at: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaybookStep {
    pub title: String,
    pub instructions: String,
}

/// What makes a playbook, or what it becomes; checked.
#[derive(Debug, Clone)]
pub struct NewPlaybook {
    pub name: String,
    pub description: String,
    pub enabled: bool,
    pub severities: Vec<Severity>,
    pub kinds: Vec<IncidentKind>,
    pub sources: Vec<String>,
    pub steps: Vec<PlaybookStep>,
}

impl NewPlaybook {
    /// Checks texts and sizes against [`limits`]. Of what is named twice in a list, once is kept.
    pub fn check(mut self) -> Result<Self, InvalidInput> {
        input::text("name", &self.name, limits::NAME_CHARS)?;
        input::text_bytes("description", &self.description, limits::TEXT_BYTES)?;
        input::text_list("sources", &self.sources)?;
        if !(1..=limits::STEPS).contains(&self.steps.len()) {
            return Err(InvalidInput::new("steps", format!("must have from 1 to {} entries", limits::STEPS)));
        }
        let mut instructions = 0;
        for step in &self.steps {
            input::text("steps.title", &step.title, limits::TITLE_CHARS)?;
            input::text_bytes("steps.instructions", &step.instructions, limits::TEXT_BYTES)?;
            instructions += step.instructions.len();
        }
        if instructions > limits::TEXT_BYTES {
            let problem = format!("are longer than {} bytes in all", limits::TEXT_BYTES);
            return Err(InvalidInput::new("steps.instructions", problem));
        }
        once(&mut self.severities);
        once(&mut self.kinds);
        once(&mut self.sources);
        Ok(self)
    }
}

fn once<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(steps: Vec<PlaybookStep>) -> Result<NewPlaybook, InvalidInput> {
        let (name, description) = ("name".to_owned(), String::new());
        let severities = vec![Severity::P1, Severity::P0, Severity::P1];
        NewPlaybook { name, description, enabled: true, severities, kinds: Vec::new(), sources: Vec::new(), steps }
            .check()
    }

    fn step(title: &str, instructions: usize) -> PlaybookStep {
        PlaybookStep { title: title.to_owned(), instructions: "x".repeat(instructions) }
    }

    #[test]
    fn steps_have_bounds() {
        assert_eq!(of(Vec::new()).unwrap_err().field, "steps");
        assert_eq!(of(vec![step("do", 0); 101]).unwrap_err().field, "steps");
        assert_eq!(of(vec![step("", 0)]).unwrap_err().field, "steps.title");
        assert_eq!(of(vec![step("do", 40_000); 2]).unwrap_err().field, "steps.instructions");
        assert!(of(vec![step("do", 600); 100]).is_ok());
    }

    #[test]
    fn what_is_named_twice_is_kept_once() {
        assert_eq!(of(vec![step("do", 0)]).unwrap().severities, [Severity::P0, Severity::P1]);
    }
}
