//! The file as serde sees it; unknown keys are errors.
