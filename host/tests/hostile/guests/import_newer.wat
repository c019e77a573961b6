;; Wants a contract that does not exist yet.
;; refused: pyxis:script/tables@0.2.0
;; component
(component (import "pyxis:script/tables@0.2.0" (instance)))
