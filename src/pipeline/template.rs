//! Templates: handlebars text, evaluated strictly, with whole-value expressions that keep their type.
