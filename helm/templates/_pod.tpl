{{- define "billhook.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest -}}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* Of {root, values}, as JSON: `pod`, as this component has it. */ -}}
{{- define "billhook.podValues" -}}
{{- toJson (mergeOverwrite (deepCopy .root.Values.pod) (.values.pod | default dict)) -}}
{{- end -}}

{{- /* What the restricted Pod Security Standard asks of a pod, of {runAsUser, runAsGroup, fsGroup}, and of a container. */ -}}
{{- define "billhook.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- with get $ $key }}
  {{ $key }}: {{ int64 . }}
  {{- end }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- define "billhook.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /*
The pod of every component, once. Of {root, component, values, command} and, where they apply: listen and port (variable
and number of what it listens on), probe (`http` or `alive`), management (`true` or `false`), handlers, databaseOnly,
serviceAccount, restartPolicy.
*/ -}}
{{- define "billhook.pod" -}}
{{- $root := .root -}}
{{- $pod := include "billhook.podValues" . | fromJson -}}
{{- $files := and .handlers (include "billhook.handlerFiles" $root | fromJson) -}}
{{- $volume := and .handlers $root.Values.handlers.volume -}}
metadata:
  labels:
    {{- include "billhook.podLabels" . | nindent 4 }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- if $files }}
    checksum/handlers: {{ include "billhook.handlerFiles" $root | sha256sum }}
    {{- end }}
    {{- with $pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ .serviceAccount | default (include "billhook.serviceAccount" $root) }}
  automountServiceAccountToken: false
  # A Service named billhook would set BILLHOOK_… variables.
  enableServiceLinks: false
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ quote . }}
    {{- end }}
  {{- end }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- with .values.terminationGracePeriodSeconds }}
  terminationGracePeriodSeconds: {{ int . }}
  {{- end }}
  {{- with $pod.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $pod.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $pod.topologySpread (not .restartPolicy) }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: {{ $pod.topologySpread }}
      labelSelector:
        matchLabels:
          {{- include "billhook.selector" $ | nindent 10 }}
      # Without it, pods of the version before count, and those of the new one end up together.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- include "billhook.podSecurity" $pod | nindent 2 }}
  containers:
    - name: {{ .component }}
      image: {{ include "billhook.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      env:
        {{- include "billhook.environment" . | nindent 8 }}
      {{- if .listen }}
      ports:
        - name: {{ if eq .probe "http" }}http{{ else }}metrics{{ end }}
          containerPort: {{ .port }}
      {{- end }}
      {{- if eq (.probe | default "") "http" }}
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- else if eq (.probe | default "") "alive" }}
      # It is not ready, and a rollout does not go on, before it has consumed.
      startupProbe:
        exec: {command: [billhook, alive]}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 30
      livenessProbe:
        exec: {command: [billhook, alive]}
        periodSeconds: {{ int .values.alive.periodSeconds }}
        timeoutSeconds: 10
        failureThreshold: {{ int .values.alive.failureThreshold }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      {{- include "billhook.containerSecurity" . | nindent 6 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: state, mountPath: /var/lib/billhook}
        - {name: secrets, mountPath: /run/secrets/billhook, readOnly: true}
        {{- if $files }}
        - {name: handler-files, mountPath: /handlers/files, readOnly: true}
        {{- end }}
        {{- if $volume }}
        - {name: handler-volume, mountPath: /handlers/volume, readOnly: true}
        {{- end }}
        {{- range $index, $mount := $pod.mounts }}
        - {name: mount-{{ $index }}, mountPath: {{ quote $mount.path }}, readOnly: true}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ $pod.tmpSize }}}
    - name: state
      emptyDir: {sizeLimit: 64Mi}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range include "billhook.references" . | fromJsonArray }}
          - secret:
              name: {{ quote .name }}
              items: [{key: {{ quote .key }}, path: {{ .path }}}]
          {{- end }}
    {{- if $files }}
    - name: handler-files
      configMap: {name: {{ include "billhook.fullname" $root }}-handlers}
    {{- end }}
    {{- if $volume }}
    - name: handler-volume
      {{- include "billhook.volume" $volume | nindent 6 }}
    {{- end }}
    {{- range $index, $mount := $pod.mounts }}
    - name: mount-{{ $index }}
      {{- include "billhook.volume" $mount | nindent 6 }}
    {{- end }}
{{- end -}}

{{- /* Of {secret}, {configMap} or {claim}: where a volume comes from. */ -}}
{{- define "billhook.volume" -}}
{{- with .secret -}}
secret: {secretName: {{ quote . }}, defaultMode: 0440}
{{- end -}}
{{- with .configMap -}}
configMap: {name: {{ quote . }}}
{{- end -}}
{{- with .claim -}}
persistentVolumeClaim: {claimName: {{ quote . }}, readOnly: true}
{{- end -}}
{{- end -}}
