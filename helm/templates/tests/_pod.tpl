{{- /* Of {root, component, name, command}: a pod of `helm test`, from the pod that all have. */ -}}
{{- define "billhook.testMetadata" -}}
{{- include "billhook.metadata" (merge (dict "annotations" (dict
    "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded")) .) -}}
{{- end -}}
{{- define "billhook.testPod" -}}
{{- $values := dict "resources" .root.Values.migration.resources "pod" .root.Values.migration.pod -}}
{{- $pod := include "billhook.pod" (merge (dict "values" $values "restartPolicy" "Never") .) | fromYaml -}}
{{- toYaml (pick $pod "spec") -}}
{{- end -}}
