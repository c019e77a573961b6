//! vizier-engine
