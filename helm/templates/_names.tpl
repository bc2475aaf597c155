{{- define "billhook.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /*
What all names begin with. At most 40 characters, since the longest suffix has to fit into 63, and that of a StatefulSet
into 52. A longer one ends in a digest: two releases may differ only in what is cut off.
*/ -}}
{{- define "billhook.fullname" -}}
{{- $name := .Release.Name -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if not (contains (include "billhook.name" .) $name) -}}
{{- $name = printf "%s-%s" $name (include "billhook.name" .) -}}
{{- end -}}
{{- if gt (len $name) 40 -}}
{{- $name = printf "%s-%s" (trunc 33 $name | trimSuffix "-") (sha256sum $name | trunc 6) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- /* Of the root: Secret of a trial, and the one with the URLs. */ -}}
{{- define "billhook.trialSecret" -}}
{{ include "billhook.fullname" . }}-trial
{{- end -}}
{{- define "billhook.secret" -}}
{{- if .Values.trial.enabled }}{{ include "billhook.trialSecret" . }}{{ else }}{{ .Values.existingSecret.name }}{{ end -}}
{{- end -}}

{{- define "billhook.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create }}{{ include "billhook.fullname" . -}}
{{- else }}default{{ end -}}
{{- end -}}

{{- /* Of {root, component}. */ -}}
{{- define "billhook.selector" -}}
app.kubernetes.io/name: {{ include "billhook.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}
{{- /* Those of pods say nothing of the chart's version, which would start all of them anew with each. */ -}}
{{- define "billhook.podLabels" -}}
{{ include "billhook.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}
{{- define "billhook.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "billhook.podLabels" . }}
{{- end -}}

{{- /* Of {root, component}: what every object begins with; `hook` makes it one that goes before the release. */ -}}
{{- define "billhook.metadata" -}}
metadata:
  name: {{ .name | default (printf "%s-%s" (include "billhook.fullname" .root) .component) }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "billhook.labels" . | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $hook := dict -}}
  {{- if .hook -}}
  {{- $hook = dict "helm.sh/hook" "pre-install,pre-upgrade" "helm.sh/hook-weight" .hook
                   "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
  {{- end -}}
  {{- with merge $hook (.annotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* Of the root: the queues that are worked on, and all values of one, as JSON: of {root, queue}. */ -}}
{{- define "billhook.queues" -}}
{{- $queues := list -}}
{{- range $queue := list "events" "deliveries" "schedules" -}}
{{- if (include "billhook.worker" (dict "root" $ "queue" $queue) | fromJson).enabled -}}
{{- $queues = append $queues $queue -}}
{{- end -}}
{{- end -}}
{{- toJson $queues -}}
{{- end -}}
{{- define "billhook.worker" -}}
{{- $all := omit .root.Values.workers "events" "deliveries" "schedules" -}}
{{- toJson (mergeOverwrite (deepCopy $all) (get .root.Values.workers .queue)) -}}
{{- end -}}
